"""What is known of one run afterwards: what arrived at the servers, what people saw, what the processes said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.rollout.effects import Audit
from bot.rollout.model import Rollout
from tests.chaos.schedule import Schedule

Json = dict[str, Any]
HELPED = "helped"
"""The answer to what the bench itself put into an inbox."""
MACHINE = "machine stalled"
"""The kind of a trouble that nobody drew: the bench's own machine had no time for its processes."""


@dataclass(frozen=True, slots=True)
class Write:
    """One accepted write of a route: the canary's weight before and after, and the mark it left.

    `by` is the process of the bot ("a", "b"), or the field manager of somebody else. Moments are epoch seconds here
    and everywhere below, of the machine's clock and not of a process whose clock was stepped.
    """

    at: float
    by: str
    ours: bool
    service: str
    was: int
    weight: int
    rollout: str
    revision: int
    phase: str
    before: Json
    after: Json


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a process' log, when it was read."""

    at: float
    bot: str
    event: str
    fields: Mapping[str, Any]

    @property
    def rollout(self) -> str:
        return str(self.fields.get("rollout", ""))


@dataclass(frozen=True, slots=True)
class Trouble:
    """A fault while it lasted. `bot` "" befalls all of them; `kind` is its first word as in the schedule."""

    begin: float
    end: float
    kind: str
    bot: str = ""
    text: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.text} {self.bot} ({self.end - self.begin:.1f} s)"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person typed and what came of it: acknowledged, and answered with these words ("" when not)."""

    at: float
    until: float
    user: str
    text: str
    acknowledged: bool
    answer: str


@dataclass(slots=True)
class Record:
    """The whole of one run."""

    schedule: Schedule
    began: float
    quiet_at: float = 0.0
    ended_at: float = 0.0
    writes: list[Write] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    spoiled: dict[str, float] = field(default_factory=dict)
    """Services whose canary fails, and since when."""
    messages: list[Json] = field(default_factory=list)
    rollouts: dict[str, Rollout] = field(default_factory=dict)
    """Records as Redis has them at the end, by id."""
    audit: list[Audit] = field(default_factory=list)
    letters_left: int = 0
    store_lost_at: list[float] = field(default_factory=list)
    """When Redis came back without what it had acknowledged."""

    def of(self, rollout: str) -> Sequence[Write]:
        """The writes that carry a rollout's mark."""
        return [one for one in self.writes if one.rollout == rollout]
