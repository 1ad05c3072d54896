"""One wake-up of one rollout: hear people, look, decide, save, act, and set the next wake-up.

Raising: saved, then patched. Towards 0: patched, then saved. The result of a patch is the next event.
"""

from collections.abc import Callable
from dataclasses import dataclass

from bot.engine.book import Book, Page
from bot.engine.holder import Holder
from bot.engine.keep import Keep
from bot.engine.measure import Measure
from bot.engine.paging import Paging
from bot.engine.routes import Routes
from bot.engine.world import World
from bot.errors import Conflict, LeaseLost, NotFound, Permanent, Transient, Unreadable
from bot.ports.mesh import Wanted
from bot.rollout import effects
from bot.rollout.effects import Effect, Message, MessageKind, SetWeight, Tone
from bot.rollout.events import Due, Event, Request, RouteGone, TookOver, WriteFailed, Written
from bot.rollout.machine import IllegalEvent, decide
from bot.rollout.model import Direction, Phase, Rollout
from bot.rollout.wake import look_due

LOOKED_AT = frozenset({Phase.PROGRESSING, Phase.AWAITING_APPROVAL, Phase.HOLDING})
PATCH_TAKES_S = 1.0
STALE_PREFLIGHT_S = 30.0
UNSAVED_RETRY_S = 1.0
CHAIN_LIMIT = 12


@dataclass(slots=True)
class Wake:
    """The work of a rollout's worker. `rung_outbox` is called when letters were saved."""

    world: World
    book: Book
    holder: Holder
    keep: Keep
    measure: Measure
    routes: Routes
    paging: Paging
    rung_outbox: Callable[[], None]

    async def __call__(self, rollout_id: str) -> None:
        """Run one wake-up; nothing but cancellation leaves it as an exception that matters."""
        if not self.holder.leading:
            return
        started = self.world.clock.monotonic()
        try:
            page = self.book.page(rollout_id) or await self._load(rollout_id)
            if page is not None:
                await self._work(page)
                self._close(page, started)
        except LeaseLost as error:
            self.world.telemetry.failed("lease-lost-on-save", error, rollout=rollout_id)
            await self.holder.give_up()
        except Conflict as error:
            self.world.telemetry.failed("record-moved", error, rollout=rollout_id)
            self.book.drop(rollout_id)
            self.world.timeline.at(rollout_id, self.world.clock.now() + UNSAVED_RETRY_S)

    async def _load(self, rollout_id: str) -> Page | None:
        """A rollout that was created elsewhere, or lost from memory."""
        try:
            rollout = await self.world.rollouts.load(rollout_id)
        except NotFound:
            return None
        except (Transient, Unreadable) as error:
            self.world.telemetry.failed("record-unread", error, rollout=rollout_id)
            return None
        if rollout.phase.final:
            await self._answer_late(rollout)
            return None
        return self.book.open(rollout, None, taken_over=not rollout.touched)

    async def _answer_late(self, rollout: Rollout) -> None:
        """People who asked something of a rollout that has ended get their answer."""
        requests = await self.world.inbox.take(rollout.id)
        if not requests:
            return
        text = f"{rollout.id} has ended as {rollout.phase}: nothing was changed."
        answers = [Message(MessageKind.ANSWER, text, tone=Tone.WAIT, reply=request.reply) for request in requests]
        await self.world.outbox.add(rollout.id, answers, self.world.clock.now())
        await self.world.inbox.done(rollout.id, [request.id for request in requests])
        self.rung_outbox()

    async def _work(self, page: Page) -> None:
        if not page.taken_over:
            await self._take_over(page)
        requests = await self._requests(page.rollout.id)
        look = False
        for request in requests:
            look |= await self._feed(page, request)
        if not page.rollout.phase.final:
            await self._advance(page, look)
        saved = await self.keep.save(page)
        if requests and saved:
            await self._heard(page.rollout.id, requests)
        if saved:
            self.rung_outbox()

    async def _take_over(self, page: Page) -> None:
        route = await self.measure.route(page.rollout)
        await self._feed(page, route if isinstance(route, RouteGone) else TookOver(route))
        page.taken_over = True

    async def _requests(self, rollout_id: str) -> tuple[Request, ...]:
        try:
            return await self.world.inbox.take(rollout_id)
        except Transient as error:
            self.world.telemetry.line("inbox-unread", rollout=rollout_id, error=str(error))
            return ()

    async def _heard(self, rollout_id: str, requests: tuple[Request, ...]) -> None:
        try:
            await self.world.inbox.done(rollout_id, [request.id for request in requests])
        except Transient as error:
            self.world.telemetry.line("inbox-not-cleared", rollout=rollout_id, error=str(error))

    async def _advance(self, page: Page, look: bool) -> None:
        """What time brings: the start, a look at the gates, or only the clock."""
        now = self.world.clock.now()
        if page.rollout.phase is Phase.SCHEDULED:
            if now < page.rollout.scheduled_at:
                await self._feed(page, await self.measure.clocked(page.rollout))
                return
            await self._feed(page, Due(await self._problems(page.rollout)))
            look = True
        if page.rollout.phase not in LOOKED_AT or not (look or look_due(page.rollout, now)):
            await self._feed(page, await self.measure.clocked(page.rollout))
            return
        again = True
        for _ in range(3):
            if not again or page.rollout.phase not in LOOKED_AT:
                return
            again = await self._feed(page, await self.measure.look(page.rollout))

    async def _problems(self, rollout: Rollout) -> tuple[str, ...]:
        """Preflight once more for a start that was scheduled for later."""
        if rollout.scheduled_at - rollout.created_at < STALE_PREFLIGHT_S:
            return ()
        target = rollout.target
        wanted = Wanted(
            service=target.service,
            namespace=target.namespace,
            mesh=target.route.mesh,
            name=target.route.name,
            route=target.route.route,
            protocol=target.route.protocol,
            canary=target.canary.label,
        )
        survey = await self.world.meshes[target.route.mesh].survey(wanted, rollout.plan.steps[0].weight_percent)
        return tuple(f"{finding.text} {finding.way_on}".strip() for finding in survey.refusals)

    async def _feed(self, page: Page, event: Event) -> bool:
        """Decide on an event and act, until nothing is left to do; True when a look was asked for."""
        pending: Event | None = event
        look = False
        for _ in range(CHAIN_LIMIT):
            if pending is None:
                return look
            try:
                decision = decide(page.rollout, pending, self.world.clock.now())
            except IllegalEvent as error:
                self.world.telemetry.failed("illegal-event", error, rollout=page.rollout.id)
                return look
            if decision.rollout.phase is not page.rollout.phase:
                self._tell_phase(page.rollout, decision.rollout)
            page.turn(decision)
            look |= decision.look
            pending = None
            for effect in decision.effects:
                pending = await self._perform(page, effect) or pending
        self.world.telemetry.line("chain-cut", rollout=page.rollout.id, last=type(event).__name__)
        return look

    def _tell_phase(self, before: Rollout, after: Rollout) -> None:
        self.world.telemetry.line(
            "phase",
            rollout=after.id,
            before=before.phase.value,
            after=after.phase.value,
            at=self.world.clock.now(),
            reason=after.reason,
        )

    async def _perform(self, page: Page, effect: Effect) -> Event | None:
        match effect:
            case effects.Page():
                self.paging.send(effect)
                return None
            case SetWeight(direction=Direction.ZERO):
                return await self._write(page, effect)
            case SetWeight():
                revision = effect.mark.revision
                if not await self.keep.save(page):
                    return WriteFailed(revision, "unsaved", "the decision could not be saved: Redis does not answer")
                if not self.holder.may_raise(PATCH_TAKES_S):
                    return WriteFailed(revision, "no-lease", "this process does not hold the lease for long enough")
                return await self._write(page, effect)

    async def _write(self, page: Page, change: SetWeight) -> Event:
        """Patch the route; whatever happens becomes an event."""
        target = page.rollout.target
        mesh = self.world.meshes[target.route.mesh]
        revision = change.mark.revision
        started = self.world.clock.monotonic()
        self.routes.forget(target)
        try:
            state = await mesh.write(target, change)
        except NotFound as error:
            return RouteGone(str(error))
        except Conflict as error:
            route = await self.measure.route(page.rollout)
            if isinstance(route, RouteGone):
                return route
            return WriteFailed(revision, "conflict", str(error), route)
        except Permanent as error:
            return WriteFailed(revision, "refused", str(error))
        except Transient as error:
            return WriteFailed(revision, "transient", str(error))
        finally:
            took_s = self.world.clock.monotonic() - started
            self.world.telemetry.observe("route_write_seconds", took_s)
        self.routes.put(target, state)
        self.world.telemetry.count("weight_changes", direction=change.direction.value)
        return Written(revision, change.weight_percent, state)

    def _close(self, page: Page, started: float) -> None:
        """Set the next wake-up, forget what has ended, and say what was done."""
        rollout = page.rollout
        unsaved = page.dirty or rollout.id in self.keep.unsure
        if rollout.phase.final and not unsaved:
            self.book.drop(rollout.id)
            self.routes.forget(rollout.target)
            self.measure.forget(rollout.id)
            self.world.timeline.cancel(rollout.id)
        else:
            now = self.world.clock.now()
            wake_at = page.wake_at if page.wake_at is not None else now + UNSAVED_RETRY_S
            self.world.timeline.at(rollout.id, min(wake_at, now + UNSAVED_RETRY_S) if unsaved else wake_at)
        self.world.telemetry.observe("wake_seconds", self.world.clock.monotonic() - started)
        self.world.telemetry.line(
            "wake",
            rollout=rollout.id,
            phase=rollout.phase.value,
            step=rollout.step,
            weight=rollout.weight_percent,
            revision=rollout.revision,
            holds=sorted(reason.value for reason in rollout.hold_reasons),
            verdicts={report.gate: report.verdict.value for report in rollout.assessment.reports}
            if rollout.assessment
            else {},
            next_in_s=None if page.wake_at is None else round(page.wake_at - self.world.clock.now(), 1),
            saved=not unsaved,
        )
