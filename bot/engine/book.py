"""The holder's memory: active rollouts, and what could not be saved yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bot.rollout.effects import Audit, Decision, Message
from bot.rollout.model import Rollout


@dataclass(slots=True)
class Page:
    """One rollout in memory. `messages` and `audit` wait to be saved with it; `dirty` says that something does.

    `taken_over` says that this holder has fenced it.
    """

    rollout: Rollout
    wake_at: float | None = None
    messages: list[Message] = field(default_factory=list)
    audit: list[Audit] = field(default_factory=list)
    dirty: bool = False
    taken_over: bool = False

    def turn(self, decision: Decision) -> None:
        """Take over a decision; it stays unsaved until `saved`."""
        self.rollout = decision.rollout
        self.wake_at = decision.wake_at
        self.messages.extend(decision.messages)
        self.audit.extend(decision.audit)
        self.dirty = self.dirty or decision.save or bool(decision.messages) or bool(decision.audit)

    def saved(self, rollout: Rollout, messages: int, audit: int) -> None:
        """Forget what has been saved: this state, and the first `messages` and `audit` of what waited."""
        del self.messages[:messages]
        del self.audit[:audit]
        self.dirty = rollout is not self.rollout or bool(self.messages or self.audit)


class Book:
    """Pages by rollout id; one rollout is written by its own worker only."""

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def page(self, rollout_id: str) -> Page | None:
        """The page of a rollout, None when it is not active here."""
        return self._pages.get(rollout_id)

    def open(self, rollout: Rollout, wake_at: float | None, *, taken_over: bool) -> Page:
        """Put a rollout into memory."""
        page = Page(rollout, wake_at, taken_over=taken_over)
        self._pages[rollout.id] = page
        return page

    def drop(self, rollout_id: str) -> None:
        """Forget a rollout that has ended and is saved."""
        self._pages.pop(rollout_id, None)

    def clear(self) -> None:
        """Forget everything (the lease is gone)."""
        self._pages.clear()

    def rollouts(self) -> Sequence[Rollout]:
        """Every active rollout in memory."""
        return [page.rollout for page in self._pages.values()]

    def on_route(self, namespace: str, name: str) -> Sequence[str]:
        """Ids of rollouts that steer an object."""
        return [
            rollout.id
            for rollout in self.rollouts()
            if (rollout.target.route.namespace, rollout.target.route.name) == (namespace, name)
        ]
