"""Plans, durations and gates as people write them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import UserError
from bot.rollout.duration import parse_duration, spoken, written
from bot.rollout.gate import GateSpec, Relation, parse_gate
from bot.rollout.plan import DEFAULT_PLAN, Plan, Step, parse_steps, text


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [("10m", 600), ("1h30m", 5400), ("90s", 90), ("250ms", 0.25), ("1.5h", 5400), ("2d", 172800), (" 5M ", 300)],
)
def test_durations_are_read(wanted: str, seconds: float) -> None:
    """Each unit means what people mean by it."""
    assert parse_duration(wanted) == seconds


@pytest.mark.parametrize("wrong", ["", "10", "m", "10x", "10m1h", "1m1m", "-5m", "1h 30m", "31d", "1e3s", "1 hour"])
def test_wrong_durations_are_refused_with_an_example(wrong: str) -> None:
    """What is no duration is quoted back, with an example of one."""
    with pytest.raises(UserError) as refusal:
        parse_duration(wrong)
    assert f"`{wrong.strip()}`" in refusal.value.message
    assert "10m" in refusal.value.hint


@given(st.integers(1, 30 * 86_400_000))
def test_a_written_duration_is_read_back(ms: int) -> None:
    """`written` and `parse_duration` are each other's inverse, to the millisecond."""
    assert parse_duration(written(ms / 1000)) == ms / 1000


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (-3, "0 s"), (0.25, "250 ms"), (59.6, "1 min"), (65, "1 min 5 s"), (600, "10 min"),
     (3900, "1 h 5 min"), (3599, "1 h"), (86400, "1 d"), (90000, "1 d 1 h")],
)  # fmt: skip
def test_durations_are_spoken_with_two_units_at_most(seconds: float, words: str) -> None:
    """A sentence gets a rounded duration."""
    assert spoken(seconds) == words


def test_a_plan_is_read() -> None:
    """Weight, bake and the approval flag, in any spacing, with or without the percent sign."""
    plan = parse_steps("5%:10m, 25:10m,50% : 30m : approve , 100%", "standard")
    assert plan == Plan("standard", (Step(5, 600), Step(25, 600), Step(50, 1800, approval=True), Step(100, 600)))


def test_the_default_plan_is_the_product_s() -> None:
    """Without a plan it is 5, 25, 50, 100 with ten minutes each."""
    assert text(DEFAULT_PLAN) == "5%:10m, 25%:10m, 50%:10m, 100%:10m"


@pytest.mark.parametrize(
    ("wrong", "where", "what"),
    [
        ("5%:10m, 5%:10m, 100%", "Step 2 (`5%:10m`, character 9)", "weights have to rise"),
        ("5%:10m, 30%", "Step 2 (`30%`, character 9)", "bake is missing"),
        ("5%:10m", "ends at 5%", "100%"),
        ("", "Step 1 (``, character 1)", "whole weight"),
        ("0%:1m,100%", "Step 1 (`0%:1m`, character 1)", "from 1% to 100%"),
        ("2.5%:1m,100%", "Step 1", "whole weight"),
        ("5%:soon,100%", "Step 1", "not a duration"),
        ("5%:0s,100%", "Step 1", "longer than nothing"),
        ("5%:1m:ask,100%", "Step 1", "not `ask`"),
        ("5%:1m,101%", "Step 2", "from 1% to 100%"),
    ],
)
def test_wrong_plans_are_refused_with_the_place_and_an_example(wrong: str, where: str, what: str) -> None:
    """The message says which step, at which character, and what was expected."""
    with pytest.raises(UserError) as refusal:
        parse_steps(wrong)
    assert where in refusal.value.message
    assert what in refusal.value.message
    assert "5%:10m, 25%:10m" in refusal.value.hint


_plans = st.lists(st.integers(1, 99), unique=True, max_size=8).flatmap(
    lambda weights: st.builds(
        lambda bakes, flags: Plan(
            "",
            tuple(
                Step(weight, bakes[number] / 10, flags[number]) for number, weight in enumerate([*sorted(weights), 100])
            ),
        ),
        st.lists(st.integers(1, 100_000), min_size=9, max_size=9),
        st.lists(st.booleans(), min_size=9, max_size=9),
    )
)


@given(_plans)
def test_a_written_plan_is_read_back(plan: Plan) -> None:
    """`text` and `parse_steps` are each other's inverse."""
    assert parse_steps(text(plan)) == plan


@given(st.text(max_size=60))
def test_no_text_breaks_the_plan_parser(wild: str) -> None:
    """Any text is a plan or gets a UserError."""
    with suppress(UserError):
        assert parse_steps(wild).steps[-1].weight_percent == 100


@pytest.mark.parametrize(
    ("wanted", "spec"),
    [
        ("error-rate<1%", GateSpec("error-rate", "error-rate", 0.01, min_requests=50, judge="sequential")),
        ("error-rate < 0.5 %", GateSpec("error-rate", "error-rate", 0.005, min_requests=50, judge="sequential")),
        (
            "error-rate<2x",
            GateSpec("error-rate", "error-rate", 2.0, Relation.RELATIVE, min_requests=50, judge="sequential"),
        ),
        ("p99<250ms", GateSpec("p99", "p99", 250.0, min_requests=500, judge="sequential")),
        ("p99<=1.2s", GateSpec("p99", "p99", 1200.0, min_requests=500, judge="sequential")),
        ("p99<1.2x", GateSpec("p99", "p99", 1.2, Relation.RELATIVE, min_requests=500, judge="sequential")),
        ("drops<=0.5", GateSpec("drops", "custom", 0.5)),
        ("queue<30s", GateSpec("queue", "custom", 30.0, unit="s")),
    ],
)
def test_gates_are_read(wanted: str, spec: GateSpec) -> None:
    """Percent, milliseconds, seconds and factors of stable become limits in the gate's own measure."""
    assert parse_gate(wanted) == spec


@pytest.mark.parametrize(
    "wrong", ["", "p99", "p99>250ms", "p99<250", "p99<5%", "error-rate<1", "error-rate<101%", "error-rate<0%", "pods<1",
              "p99<250ms; drop", "a b<1", "p99<-1ms", "p99<nan"],
)  # fmt: skip
def test_wrong_gates_are_refused_with_an_example(wrong: str) -> None:
    """What is no gate is quoted back, with examples."""
    with pytest.raises(UserError) as refusal:
        parse_gate(wrong)
    assert "p99<250ms" in refusal.value.hint
