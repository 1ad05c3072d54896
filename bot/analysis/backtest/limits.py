"""What the runs of a gate teach: a limit that fits better, in words."""

from dataclasses import replace
from math import floor, log10

from bot.analysis.backtest.results import GateResult, Outcome
from bot.analysis.sentences import milliseconds, number, percent
from bot.rollout.gate import GateSpec, Relation

CLEAR = 3.0
_NICE = (1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)


def better_limit(result: GateResult) -> GateSpec | None:
    """The gate with a limit worth trying: above all values where it failed, nearer to them where it is far too wide."""
    gate, values = result.gate, result.values
    if not values or gate.kind == "missing-responses" or not gate.limit:
        return None
    highest = values[-1]
    if result.count(Outcome.FAILED):
        return replace(gate, limit=_nice(max(highest, 1.05 * gate.limit)))
    if highest > 0 and gate.limit > CLEAR * highest:
        tighter = _nice(1.5 * highest)
        return replace(gate, limit=tighter) if tighter < gate.limit else None
    return None


def wider(gate: GateSpec) -> GateSpec:
    """The gate with half as much more again."""
    return replace(gate, limit=_nice(1.45 * gate.limit))


def advice(result: GateResult, other: GateResult | None) -> str:
    """What a gate's runs teach, in words; `other` is the same with another limit, None when none was tried."""
    runs = len(result.runs)
    if result.untried or not runs:
        return ""
    failed, waited = result.count(Outcome.FAILED), result.count(Outcome.WAITED)
    told = []
    if failed:
        told.append(f"{spelled(result.gate)} would have failed {failed} of {runs} runs")
        if other is not None:
            again = other.count(Outcome.FAILED)
            told[0] += f"; {limit_text(other.gate)} {again} of {len(other.runs)}"
        told[0] += "."
    elif result.count(Outcome.UNMEASURED) == runs:
        told.append(f"{spelled(result.gate)} could not be measured: {result.runs[-1].detail}")
    elif waited < runs:
        told.append(f"{spelled(result.gate)} would have failed none of {runs} runs.")
        if other is not None and not other.count(Outcome.FAILED):
            told.append(f"Nor would {limit_text(other.gate)}, which would see a smaller regression.")
    if waited:
        example = next(one for one in result.runs if one.outcome is Outcome.WAITED)
        told.append(f"{waited} of {runs} would have waited for more requests: {example.detail}")
    return " ".join(told)


def spelled(gate: GateSpec) -> str:
    """A gate as people type it: `p99<250 ms`, `error-rate<2x`."""
    return f"{gate.name}<{limit_text(gate)}" if gate.limit else gate.name


def limit_text(gate: GateSpec) -> str:
    """The limit with its unit."""
    return amount(gate, gate.limit)


def amount(gate: GateSpec, value: float) -> str:
    """A value of a gate in its unit, `1.3x` for relative limits."""
    if gate.relation is Relation.RELATIVE:
        return f"{number(value)}x"
    match gate.kind:
        case "error-rate" | "missing-responses":
            return percent(value)
        case "p99":
            return milliseconds(value)
        case _:
            return f"{number(value)}{gate.unit if gate.unit in ('', '%') else f' {gate.unit}'}"


def _nice(value: float) -> float:
    """The next round number that is not smaller: 1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8 with any power of ten."""
    scale = 10.0 ** floor(log10(value))
    mantissa = next((one for one in _NICE if one * scale >= value * (1 - 1e-9)), 10.0)
    return float(f"{mantissa * scale:.6g}")
