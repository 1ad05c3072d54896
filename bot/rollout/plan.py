"""A plan: the ordered weights of a rollout, how long each must hold, and where a person is asked."""

import re

from bot.errors import UserError
from bot.rollout.duration import parse_duration, written
from bot.values import dataclass

EXAMPLE = "5%:10m, 25%:10m, 50%:30m:approve, 100%:10m"
LAST_BAKE_S = 600.0


@dataclass(frozen=True, slots=True)
class Step:
    """One weight of a plan; `approval` is asked before this weight is entered."""

    weight_percent: int
    bake_s: float
    approval: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps of strictly rising weight, integers from 1, ending at 100."""

    name: str
    steps: tuple[Step, ...]


DEFAULT_PLAN = Plan(
    "default", (Step(5, 600.0), Step(25, 600.0), Step(50, 600.0), Step(100, LAST_BAKE_S))
)  # what product and help promise when neither catalog nor command names one


def text(plan: Plan) -> str:
    """The plan as `parse_steps` reads it: `5%:10m, 50%:30m:approve, 100%:10m`."""
    return ", ".join(
        f"{step.weight_percent}%:{written(step.bake_s)}{':approve' if step.approval else ''}" for step in plan.steps
    )


def parse_steps(steps: str, name: str = "") -> Plan:
    """A plan from `weight:bake[:approve]` steps parted by commas; the bake of 100% may be left out (10 m).

    Raises UserError with what was wrong, in which step, at which character, and an example.
    """
    parsed: list[Step] = []
    position = 1
    for number, piece in enumerate(steps.split(","), 1):
        start = position + len(piece) - len(piece.lstrip())
        position += len(piece) + 1
        parsed.append(_step(piece.strip(), number, start, parsed[-1] if parsed else None))
    if parsed[-1].weight_percent != 100:
        raise UserError(
            f"The plan ends at {parsed[-1].weight_percent}%: the last step has to be 100%.", f"For example `{EXAMPLE}`."
        )
    return Plan(name, tuple(parsed))


def _step(piece: str, number: int, start: int, previous: Step | None) -> Step:
    def wrong(what: str) -> UserError:
        return UserError(f"Step {number} (`{piece}`, character {start}): {what}", f"For example `{EXAMPLE}`.")

    weight_text, *rest = (part.strip() for part in piece.split(":"))
    weight = re.fullmatch(r"([0-9]{1,3})%?", weight_text)
    if weight is None or not 1 <= int(weight[1]) <= 100:
        raise wrong("expected a whole weight from 1% to 100%.")
    weight_percent = int(weight[1])
    if previous is not None and weight_percent <= previous.weight_percent:
        raise wrong(f"weights have to rise, but {weight_percent}% follows {previous.weight_percent}%.")
    approval = bool(rest) and rest[-1].lower() == "approve"
    bakes = rest[:-1] if approval else rest
    if len(bakes) > 1:
        raise wrong(f"expected `weight:bake` or `weight:bake:approve`, not `{bakes[1]}`.")
    if not bakes and weight_percent != 100:
        raise wrong("the time it has to bake is missing.")
    try:
        bake_s = parse_duration(bakes[0]) if bakes else LAST_BAKE_S
    except UserError as error:
        raise wrong(error.message) from error
    if bake_s <= 0:
        raise wrong("the bake has to be longer than nothing.")
    return Step(weight_percent, bake_s, approval)
