"""The holder's memory: active rollouts, and what could not be saved yet."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bot.rollout.effects import Audit, Decision, Message, MessageKind
from bot.rollout.model import Rollout


@dataclass(frozen=True, slots=True)
class Attempt:
    """One save as it was sent: repeated to the letter until the store has answered."""

    rollout: Rollout
    wake_at: float | None
    messages: tuple[Message, ...]
    audit: tuple[Audit, ...]
    save_id: str


@dataclass(slots=True)
class Page:
    """One rollout in memory. `messages` and `audit` wait to be saved with it; `dirty` says that something does.

    `taken_over` says that this holder has fenced it, `unsure` is a save whose reply was lost, `answered` are requests
    that were decided but are still in the inbox, `due_at` is when the timeline rings next, `looked_at` when the last
    look began, `inbox_read` says that the inbox was read once since it was opened, `told` stands for what the log was
    told last, `token` is the lease's under which its wake-up began. A `closed` page is no longer in the book and never
    saved again.
    """

    rollout: Rollout
    wake_at: float | None = None
    messages: list[Message] = field(default_factory=list)
    audit: list[Audit] = field(default_factory=list)
    dirty: bool = False
    taken_over: bool = False
    unsure: Attempt | None = None
    answered: frozenset[str] = frozenset()
    closed: bool = False
    due_at: float | None = None
    inbox_read: bool = False
    looked_at: float | None = None
    told: int | None = None
    token: int = 0

    def turn(self, decision: Decision) -> None:
        """Take over a decision; it stays unsaved until `saved`."""
        self.rollout = decision.rollout
        self.wake_at = decision.wake_at
        for message in decision.messages:
            self._queue(message)
        self.audit.extend(decision.audit)
        self.dirty = self.dirty or decision.save or bool(decision.messages) or bool(decision.audit)

    def say(self, message: Message) -> None:
        """Queue a message that belongs to no decision."""
        self._queue(message)
        self.dirty = True

    def attempt(self, save_id: str) -> Attempt:
        """Everything there is to save now, as one save."""
        self.unsure = Attempt(self.rollout, self.wake_at, tuple(self.messages), tuple(self.audit), save_id)
        return self.unsure

    def saved(self) -> None:
        """Forget what has been saved with the attempt."""
        attempt = self.unsure
        if attempt is None:
            return
        del self.messages[: len(attempt.messages)]
        del self.audit[: len(attempt.audit)]
        self.dirty = attempt.rollout is not self.rollout or bool(self.messages or self.audit)
        self.unsure = None

    def _queue(self, message: Message) -> None:
        """A card waits only once: it is rendered when it is delivered, and a long outage shall not fill the memory."""
        sent = len(self.unsure.messages) if self.unsure else 0
        if message.kind is MessageKind.CARD and message in self.messages[sent:]:
            del self.messages[self.messages.index(message, sent)]
        self.messages.append(message)


class Book:
    """Pages by rollout id; one rollout is written by its own worker only."""

    def __init__(self) -> None:
        self._pages: dict[str, Page] = {}
        self._on_route: dict[tuple[str, str], tuple[str, ...]] = {}

    def __len__(self) -> int:
        return len(self._pages)

    def page(self, rollout_id: str) -> Page | None:
        """The page of a rollout, None when it is not active here."""
        return self._pages.get(rollout_id)

    def open(self, rollout: Rollout, wake_at: float | None, *, taken_over: bool) -> Page:
        """Put a rollout into memory."""
        self.drop(rollout.id)
        page = Page(rollout, wake_at, taken_over=taken_over)
        self._pages[rollout.id] = page
        where = _object(rollout)
        self._on_route[where] = (*self._on_route.get(where, ()), rollout.id)
        return page

    def drop(self, rollout_id: str) -> None:
        """Forget a rollout that has ended and is saved."""
        page = self._pages.pop(rollout_id, None)
        if page is not None:
            page.closed = True
            where = _object(page.rollout)
            ids = tuple(one for one in self._on_route.pop(where, ()) if one != rollout_id)
            if ids:
                self._on_route[where] = ids

    def clear(self) -> None:
        """Forget everything (the lease is gone)."""
        for rollout_id in tuple(self._pages):
            self.drop(rollout_id)

    def rollouts(self) -> Sequence[Rollout]:
        """Every active rollout in memory."""
        return [page.rollout for page in self._pages.values()]

    def pages(self) -> Sequence[Page]:
        """Every page."""
        return tuple(self._pages.values())

    def on_route(self, namespace: str, name: str) -> Sequence[str]:
        """Ids of rollouts that steer an object."""
        return sorted(self._on_route.get((namespace, name), ()))


def _object(rollout: Rollout) -> tuple[str, str]:
    route = rollout.target.route
    return route.namespace, route.name
