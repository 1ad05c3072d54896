"""Values made cheaply are values all the same."""

import dataclasses

import pytest

from bot.rollout.gate import Assessment, Coverage, GateReport, Share, Verdict
from bot.rollout.model import Actor, Bake, Destination, Source
from bot.values import replace
from tests.fixtures.rollouts import rollout

VALUES = (
    rollout(),
    Bake(confirmed_at=1.0),
    Destination("payments", "v1"),
    Actor(Source.PERSON, "U1", "Ada"),
    Coverage(1.0, 2.0),
    GateReport("p99", Verdict.PASS, "well"),
    Assessment(1.0, 0, 5, (), Share(None, 0, None)),
)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_copy_is_equal_and_another_object(value: object) -> None:
    """Compared and hashed by their fields, as frozen dataclasses are."""
    copy = replace(value)  # type: ignore[type-var]
    assert copy == value
    assert copy is not value
    assert hash(copy) == hash(value)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_changed_copy_is_what_dataclasses_make_of_it(value: object) -> None:
    """The field that changes differs, the others and the original stay."""
    name = dataclasses.fields(value)[0].name  # type: ignore[arg-type]
    changed = replace(value, **{name: "other"})  # type: ignore[type-var]
    assert changed == dataclasses.replace(value, **{name: "other"})  # type: ignore[type-var]
    assert changed != value


def test_a_field_that_is_not_there_is_refused() -> None:
    """A mistyped name changes nothing in silence."""
    with pytest.raises(AttributeError):
        replace(Bake(), confirmed=1.0)  # type: ignore[call-arg]
