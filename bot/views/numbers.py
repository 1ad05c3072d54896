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


def value(report: GateReport) -> str:
    """The canary's value in its own unit, `–` for none."""
    return _amount(report, report.value)


def stable_value(report: GateReport) -> str:
    """Stable's value in its own unit, `–` for none."""
    return _amount(report, report.stable_value)


def limit_of(report: GateReport) -> str:
    """The limit: in the unit of the value, or as a multiple of stable's."""
    if report.limit is not None and report.unit == "x":
        return f"{number(report.limit)}x stable"
    return _amount(report, report.limit)


def _amount(report: GateReport, amount: float | None) -> str:
    if amount is None:
        return NOTHING
    match report.gate:
        case "error-rate" | "missing-responses":
            return percent(amount)
        case "p99":
            return milliseconds(amount)
        case "pods":
            return f"{number(amount)} ready"
        case _ if report.unit in ("", "x"):
            return number(amount)
        case _:
            return f"{number(amount)}{'' if report.unit == '%' else ' '}{report.unit}"


def samples(report: GateReport) -> str:
    """`1,234`, or `37/50` while more are needed."""
    if report.samples is None:
        return NOTHING
    if report.needed_samples and report.samples < report.needed_samples:
        return f"{report.samples:,}/{report.needed_samples:,}"
    return f"{report.samples:,}"


def could_show(report: GateReport) -> str:
    """The smallest effect that so many requests could be expected to show: `2.1%`, or of a p99 `2.1% slow`."""
    if report.smallest_visible is None:
        return NOTHING
    return percent(report.smallest_visible) + (" slow" if report.gate == "p99" else "")


def result(report: GateReport) -> str:
    """The verdict in words; with enough requests and no verdict it is chance that cannot be ruled out yet."""
    enough = report.needed_samples is not None and (report.samples or 0) >= report.needed_samples
    if report.verdict is Verdict.INCONCLUSIVE and report.alpha is not None and enough:
        return "… not decided"
    return MARKS[report.verdict]


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


def counted(count: int, thing: str) -> str:
    """`1 service`, `3 services`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
