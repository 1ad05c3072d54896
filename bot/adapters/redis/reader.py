"""Reading records of rollouts so that thousands of them share what they have in common."""

from dataclasses import replace
from typing import Any, TypeVar, cast

from bot.errors import Unreadable
from bot.rollout.model import Rollout, Side, Target
from bot.rollout.record import load_rollout

_SHARED_MOST = 1000

_Value = TypeVar("_Value")


class Reader:
    """One for each shard. There are few plans, gates, rules and people, and thousands of rollouts."""

    def __init__(self) -> None:
        self._shared: dict[object, Any] = {}

    def rollout(self, text: str) -> Rollout:
        """A record as it lies in Redis; raises Unreadable, also when there is none."""
        if not text:
            raise Unreadable("its record is missing")
        rollout = load_rollout(text)
        return rollout.with_(
            plan=self._same(rollout.plan),
            gates=self._same(rollout.gates),
            rules=self._same(rollout.rules),
            started_by=self._same(rollout.started_by),
            told=self._same(rollout.told),
            target=_lean(rollout.target),
        )

    def _same(self, value: _Value) -> _Value:
        """The equal value that others have."""
        if len(self._shared) > _SHARED_MOST:
            self._shared.clear()
        found: _Value = self._shared.setdefault(value, value)
        return found


def _lean(target: Target) -> Target:
    """The same target, each text and label once."""
    known: dict[object, object] = {target.host: target.host}

    def once(value: _Value) -> _Value:
        found: Any = known.setdefault(value, value)
        return cast(_Value, found)

    def side(one: Side) -> Side:
        destination = replace(one.destination, host=once(one.destination.host))
        return replace(one, destination=destination, selector=tuple(once(pair) for pair in one.selector))

    return replace(target, stable=side(target.stable), canary=side(target.canary))
