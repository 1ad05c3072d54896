"""A process that has more rollouts than it can look at says so."""

from bot.engine.backlog import FOR_S, Backlog
from bot.engine.book import Page
from bot.rollout import effects
from tests.engine.stage import Stage, stage
from tests.unit.rollout.world import rollout

EVERY_S = 5.0


class Kept:
    """A backlog over pages that look every five seconds, and what it paged."""

    def __init__(self, made: Stage, count: int) -> None:
        self.made = made
        self.pages = [Page(rollout(), due_at=made.clock.now()) for _ in range(count)]
        self.sent: list[effects.Page] = []
        self.backlog = Backlog(made.engine._world, lambda: self.pages, self.sent.append)

    def goes_on(self, seconds: float, *, late: int) -> None:
        """Time passes in rounds of five seconds; all but some are looked at in time."""
        for _ in range(int(seconds / EVERY_S)):
            self.made.clock.advance(EVERY_S)
            for page in self.pages[late:]:
                page.due_at = self.made.clock.now() + EVERY_S
            self.backlog.round()


async def test_rollouts_that_wait_for_their_look_are_told_once_and_when_it_is_over() -> None:
    """A page says how many and what to do; it is closed when all are looked at in time."""
    async with stage() as made:
        kept = Kept(made, 20)
        kept.goes_on(FOR_S + 200, late=5)
        assert [page.summary for page in kept.sent] == [
            "canary-bot falls behind: 5 of 20 rollouts are not looked at in time, the latest since 1 min 15 s"
        ]
        assert "CANARY_BOT_SHARDS" in kept.sent[0].detail
        kept.goes_on(20, late=0)
        assert [(page.key, page.resolved) for page in kept.sent[1:]] == [(kept.sent[0].key, True)]


async def test_a_few_late_ones_and_a_short_stall_wake_nobody() -> None:
    """One of twenty may wait for its own slow route, and a minute is no backlog."""
    async with stage() as made:
        kept = Kept(made, 20)
        kept.goes_on(600, late=2)
        kept.goes_on(FOR_S - 10, late=20)
        kept.goes_on(10, late=0)
        kept.goes_on(FOR_S - 10, late=20)
        assert kept.sent == []


async def test_who_gives_its_rollouts_away_closes_its_page() -> None:
    """Nobody else could: the page is of this process."""
    async with stage() as made:
        kept = Kept(made, 4)
        kept.goes_on(FOR_S + 60, late=4)
        kept.backlog.forget()
        kept.backlog.forget()
        assert [page.resolved for page in kept.sent] == [False, True]
