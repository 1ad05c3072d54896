"""Faults to plant in the bot, at least one per safety rule: each has to be found by the checker."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from bot.adapters.mesh import weighing
from bot.analysis.gates import error_rate, p99
from bot.engine.book import Page
from bot.engine.deliver import Deliver
from bot.engine.engine import Engine
from bot.engine.holder import Holder
from bot.engine.keep import Keep
from bot.engine.measure import Measure
from bot.engine.recovery import Recovery
from bot.engine.wake import Wake
from bot.errors import Transient
from bot.rollout import advance, drift, judging, looking, people
from bot.rollout.effects import Direction, MessageKind, SetWeight
from bot.rollout.events import Event, RouteGone, WriteFailed
from bot.rollout.gate import Verdict
from bot.rollout.model import Phase


@dataclass(frozen=True, slots=True)
class Plant:
    """One fault: the rule it breaks, the figure under which it has to be counted, and how it is planted.

    `said` is part of what the checker has to say, `within` the number of seeds in which it has to.
    """

    rule: int
    figure: str
    said: str
    where: Any
    name: str
    make: Callable[[Any], Any]
    within: int = 100


@contextmanager
def planted(plant: Plant) -> Iterator[None]:
    """The bot with this fault, while it lasts."""
    former = getattr(plant.where, plant.name)
    setattr(plant.where, plant.name, plant.make(former))
    try:
        yield
    finally:
        setattr(plant.where, plant.name, former)


def _one_too_many(former: Any) -> Any:
    def raised(*args: Any) -> Any:
        first, *rest = former(*args)
        return [{**first, "value": first["value"] + 1}, *rest]

    return raised


def _timeout_touched(former: Any) -> Any:
    def patch(*args: Any, **named: Any) -> Any:
        return [*former(*args, **named), {"op": "add", "path": "/spec/http/0/timeout", "value": "1s"}]

    return patch


def _untested(former: Any) -> Any:
    def patch(*args: Any, **named: Any) -> Any:
        return [one for one in former(*args, **named) if one["op"] != "test"]

    return patch


def _no_obstacles(former: Any) -> Any:
    return lambda rollout, look: ()


def _always(former: Any) -> Any:
    async def may_raise(self: Holder, token: int, within_s: float) -> bool:
        return True

    return may_raise


def _raises_unsaved(former: Any) -> Any:
    async def save(self: Keep, page: Page) -> bool:
        if page.rollout.write is not None and page.rollout.write.raising:
            return True
        return await former(self, page)

    return save


def _fails_do_not_decide(former: Any) -> Any:
    return lambda draft, look: False


def _zero_waits_for_the_store(former: Any) -> Any:
    async def perform(self: Wake, page: Page, effect: Any) -> Event | None:
        if isinstance(effect, SetWeight) and effect.direction is Direction.ZERO and not await self.keep.save(page):
            return WriteFailed(effect.mark.revision, "unsaved", "the decision could not be saved")
        return await former(self, page, effect)

    return perform


def _zero_once_only(former: Any) -> Any:
    async def write(self: Wake, page: Page, change: SetWeight) -> Event:
        if change.direction is Direction.ZERO and page.rollout.write is not None and page.rollout.write.attempts:
            return WriteFailed(change.mark.revision, "transient", "not tried again")
        return await former(self, page, change)

    return write


def _errors_fail(former: Any) -> Any:
    def deciding(tallies: Any, look: Any) -> Any:
        return former(tallies, look) + [one for one in look.reports if one.verdict is Verdict.ERROR]

    return deciding


def _lost_rings_stay_lost(former: Any) -> Any:
    async def each_round(self: Engine) -> None:
        return None

    return each_round


def _nothing_is_loaded(former: Any) -> Any:
    async def gained(self: Engine) -> None:
        rung = self._workers.ring
        self._workers.ring = lambda key: None  # type: ignore[method-assign]
        try:
            await former(self)
        finally:
            self._workers.ring = rung  # type: ignore[method-assign]
        self._book.clear()
        self._missed = lambda rollout_id, late: False  # type: ignore[method-assign]

    return gained


def _no_fence(former: Any) -> Any:
    async def take_over(self: Wake, page: Page) -> None:
        page.taken_over = True

    return take_over


def _bakes_fast(former: Any) -> Any:
    def progress(draft: Any, look: Any) -> None:
        before = draft.rollout.bake
        former(draft, look)
        bake = draft.rollout.bake
        if bake.confirmed_at == before.confirmed_at:
            draft.set(bake=replace(bake, covered_s=bake.covered_s + 3 * (bake.covered_s - before.covered_s)))

    return progress


def _no_notes(former: Any) -> Any:
    def queue(self: Page, message: Any) -> None:
        if message.kind not in (MessageKind.NOTE, MessageKind.FINAL, MessageKind.ALERT):
            former(self, message)

    return queue


def _gives_up_telling(former: Any) -> Any:
    async def put_off(self: Deliver, letter: Any, delay_s: float) -> None:
        await self._world.outbox.done(letter)

    return put_off


def _says_everything_twice(former: Any) -> Any:
    async def say(self: Deliver, letter: Any) -> None:
        await former(self, letter)
        if not letter.attempts:
            raise Transient("once more")

    return say


def _never_stale(former: Any) -> Any:
    return lambda rollout, request: False


def _no_drift(former: Any) -> Any:
    return lambda rollout, route: ""


def _blind_while_held(former: Any) -> Any:
    return lambda rollout, now: rollout.phase is Phase.PROGRESSING and former(rollout, now)


def _clock_set_back_blinds(former: Any) -> Any:
    def look_due(rollout: Any, now: float) -> bool:
        look = rollout.assessment
        return former(rollout, now) and (look is None or now - look.at >= rollout.rules.check_every_s - 0.05)

    return look_due


def _tries_slowly(former: Any) -> Any:
    def slow(self: Wake, page: Page, started: float) -> None:
        former(self, page, started)
        if page.rollout.phase is Phase.ROLLING_BACK and page.due_at is not None:
            page.due_at += 15.0
            self.world.timeline.at(page.rollout.id, page.due_at)

    return slow


def _loads_late(former: Any) -> Any:
    async def gained(self: Engine) -> None:
        await self._world.clock.sleep(15.0)
        await former(self)

    return gained


def _goes_on_unasked(former: Any) -> Any:
    def held(rollout: Any, now: float) -> Any:
        made = former(rollout, now)
        return replace(made, rollout=replace(made.rollout, holds=()))

    return held


def _marks_are_not_read(former: Any) -> Any:
    async def each_round(self: Recovery) -> None:
        return None

    return each_round


def _gone_is_nothing(former: Any) -> Any:
    async def route(self: Measure, rollout: Any) -> Any:
        found = await former(self, rollout)
        return None if isinstance(found, RouteGone) else found

    return route


def _knows_no_freeze(former: Any) -> Any:
    async def freezes_now(self: Measure) -> tuple[()]:
        return ()

    return freezes_now


def _passes(former: Any) -> Any:
    return lambda weighed, **named: Verdict.PASS if named["known"] else Verdict.INCONCLUSIVE


def _wake_module() -> Any:
    from bot.engine import wake

    return wake


def _recovery_module() -> Any:
    from bot.engine import recovery

    return recovery


PLANTS: Mapping[str, Plant] = {
    "weights sum to 101": Plant(1, "broken", "sum to 101", weighing, "_raised", _one_too_many),
    "a timeout is changed": Plant(1, "broken", "more than weights", weighing, "patch", _timeout_touched),
    "nothing stands against a raise": Plant(2, "raised_wrongly", "rule 2", advance, "obstacles", _no_obstacles),
    "patches test nothing": Plant(2, "raised_wrongly", "", weighing, "patch", _untested, 400),
    "raises without the lease": Plant(2, "raised_wrongly", "without the lease", Holder, "may_raise", _always, 400),
    "raises unsaved": Plant(2, "raised_wrongly", "before it was saved", Keep, "save", _raises_unsaved),
    "a FAIL decides nothing": Plant(3, "late_rollbacks", "rule 3", looking, "judge", _fails_do_not_decide),
    "to 0 only with the store": Plant(
        3, "late_rollbacks", "after the verdict", Wake, "_perform", _zero_waits_for_the_store, 400
    ),
    "to 0 only once": Plant(3, "late_rollbacks", "never at 0", Wake, "_write", _zero_once_only, 400),
    "no measurement is a FAIL": Plant(4, "broken", "rule 4", judging, "deciding", _errors_fail),
    "a lost ring stays lost": Plant(5, "lost", "", Engine, "_each_round", _lost_rings_stay_lost, 2000),
    "nothing is loaded": Plant(5, "lost", "", Engine, "gained", _nothing_is_loaded, 400),
    "nobody fences": Plant(5, "raised_wrongly", "before it had", Wake, "_take_over", _no_fence, 400),
    "a bake counts four times": Plant(5, "lost", "rule 5", looking, "progress", _bakes_fast),
    "no notes": Plant(6, "unannounced", "told to nobody", Page, "_queue", _no_notes),
    "a failed letter is dropped": Plant(6, "unannounced", "never posted", Deliver, "_put_off", _gives_up_telling, 400),
    "everything is said twice": Plant(6, "broken", "said again", Deliver, "_say", _says_everything_twice),
    "no button is stale": Plant(7, "broken", "rule 7", people, "stale", _never_stale, 400),
    "drift is not seen": Plant(8, "broken", "rule 8", drift, "differs", _no_drift, 400),
    "blind while held": Plant(9, "broken", "rule 9", _wake_module(), "look_due", _blind_while_held, 400),
    "no freeze is known": Plant(2, "raised_wrongly", "into a freeze", Measure, "freezes_now", _knows_no_freeze, 400),
    "tries to 0 every 15 s": Plant(3, "late_rollbacks", "after its calls", Wake, "_close", _tries_slowly, 400),
    "a new holder loads late": Plant(9, "broken", "rule 9", Engine, "gained", _loads_late, 400),
    "sequential errors always pass": Plant(3, "late_rollbacks", "of quiet", error_rate, "verdict", _passes, 400),
    "sequential p99 always passes": Plant(3, "late_rollbacks", "of quiet", p99, "verdict", _passes, 400),
    "marks are not read": Plant(5, "lost", "no record any more", Recovery, "round", _marks_are_not_read, 400),
    "rebuilt ones go on": Plant(
        5, "raised_wrongly", "nobody resumed it", _recovery_module(), "held_rebuilt", _goes_on_unasked, 400
    ),
    "kept ones go on": Plant(
        5, "raised_wrongly", "nobody resumed it", _recovery_module(), "held_in_memory", _goes_on_unasked, 400
    ),
    "a deleted route is nothing": Plant(
        8, "unannounced", "was told to nobody", Measure, "route", _gone_is_nothing, 2000
    ),
    "a clock set back blinds": Plant(9, "broken", "rule 9", _wake_module(), "look_due", _clock_set_back_blinds, 2000),
}
"""Name -> fault. A rule has several where it has several guards."""
