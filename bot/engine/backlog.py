"""Says when this process has more rollouts than it can look at: bad canaries then keep their traffic for longer."""

from collections.abc import Callable, Sequence

from bot.engine import book
from bot.engine.world import World
from bot.rollout.duration import spoken
from bot.rollout.effects import Page

LOOKS_MISSED = 2
PART = 0.1
FOR_S = 60.0
LEAST_S = 10.0
"""Less is no backlog, however often a rollout wants to be looked at."""


class Backlog:
    """One page when more than a tenth of the rollouts have been overdue by two looks for a minute, and one when all is
    well again."""

    def __init__(self, world: World, pages: Callable[[], Sequence[book.Page]], send: Callable[[Page], None]) -> None:
        self._world = world
        self._pages = pages
        self._send = send
        self._since: float | None = None
        self._told = False

    def round(self) -> None:
        """See who is overdue; to be called every few seconds."""
        now, monotonic = self._world.clock.now(), self._world.clock.monotonic()
        pages = self._pages()
        late = [late_s for page in pages if (late_s := _late_s(page, now)) is not None]
        self._world.telemetry.gauge("rollouts_overdue", len(late))
        if len(late) <= PART * len(pages):
            self._since = None
            if self._told:
                self._told = False
                self._send(Page(self._key, "canary-bot keeps up with its rollouts again", resolved=True))
            return
        self._since = monotonic if self._since is None else self._since
        if monotonic - self._since >= FOR_S and not self._told:
            self._told = True
            summary = (
                f"canary-bot falls behind: {len(late)} of {len(pages)} rollouts are not looked at in time, the latest "
                f"since {spoken(max(late))}"
            )
            detail = (
                "A bad canary keeps its weight until its look. Give the process more of a core, or let replicas share "
                "the rollouts (`CANARY_BOT_SHARDS`); `rollback` works."
            )
            self._send(Page(self._key, summary, detail))

    def forget(self) -> None:
        """Another process decides now."""
        self._since = None
        if self._told:
            self._told = False
            self._send(Page(self._key, "canary-bot gave its rollouts to another process", resolved=True))

    @property
    def _key(self) -> str:
        return f"behind:{self._world.owner}"


def _late_s(page: book.Page, now: float) -> float | None:
    """For how long a rollout has been due, None when that is no more than two looks take."""
    late_s = now - page.due_at if page.due_at is not None else 0.0
    return late_s if late_s > max(LEAST_S, LOOKS_MISSED * page.rollout.rules.check_every_s) else None
