"""Values of gates, weights and shares as people read them."""

from bot.analysis.sentences import milliseconds, number, percent
from bot.rollout.gate import GateReport, GateSpec, Relation, Verdict

MARKS = {
    Verdict.PASS: "✓ pass",
    Verdict.FAIL: "✗ FAIL",
    Verdict.INCONCLUSIVE: "… too little data",
    Verdict.ERROR: "! cannot measure",
}
NOTHING = "–"


def amount(value: float | None, unit: str) -> str:
    """A value in its unit: a fraction as percent, milliseconds, a factor, or as it is; `–` for none."""
    if value is None:
        return NOTHING
    match unit:
        case "fraction" | "%":
            return percent(value)
        case "ms":
            return milliseconds(value)
        case "x":
            return f"{number(value)}x"
        case "":
            return number(value)
        case _:
            return f"{number(value)} {unit}"


def samples(report: GateReport) -> str:
    """`1,234`, or `37/50` while more are needed."""
    if report.samples is None:
        return NOTHING
    if report.needed_samples and report.samples < report.needed_samples:
        return f"{report.samples:,}/{report.needed_samples:,}"
    return f"{report.samples:,}"


def limit(spec: GateSpec) -> str:
    """A gate as it is typed: `error-rate<1%`, `p99<1.2x`."""
    if spec.relation is Relation.RELATIVE:
        return f"{spec.name}<{number(spec.limit)}x"
    if spec.kind == "error-rate":
        return f"{spec.name}<{percent(spec.limit)}"
    if spec.kind == "p99":
        return f"{spec.name}<{number(spec.limit)}ms"
    return f"{spec.name}<{number(spec.limit)}{spec.unit}" if spec.limit else spec.name


def share(percent_value: float | None) -> str:
    """A share of traffic in percent with one digit."""
    return NOTHING if percent_value is None else f"{percent_value:.1f}%"


def bar(percent_value: float | None, cells: int = 20) -> str:
    """`█████░░░░░░░░░░░░░░░` for 25%; never empty above 0, never full below 100."""
    if percent_value is None:
        return "·" * cells
    bounded = min(100.0, max(0.0, percent_value))
    filled = round(cells * bounded / 100)
    if 0 < bounded < 100:
        filled = min(cells - 1, max(1, filled))
    return "█" * filled + "░" * (cells - filled)
