"""One wake-up of one rollout: hear people, look, decide, save, act, and set the next wake-up.

Raising: saved, then patched. Towards 0: patched, then saved. The result of a patch is the next event.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from bot.engine.book import Book, Page
from bot.engine.holder import Holder
from bot.engine.keep import Keep
from bot.engine.measure import Measure
from bot.engine.pace import card_every_s, in_step, shared_moment
from bot.engine.paging import Paging
from bot.engine.routes import Routes
from bot.engine.world import World
from bot.errors import Conflict, LeaseLost, NotFound, Overwritten, Permanent, Transient, Unreadable
from bot.ports.mesh import Wanted
from bot.rollout import effects
from bot.rollout.duration import spoken
from bot.rollout.effects import Effect, Message, MessageKind, SetWeight, Tone
from bot.rollout.events import Due, Event, Request, RouteGone, TookOver, WriteFailed, Written
from bot.rollout.machine import IllegalEvent, decide
from bot.rollout.model import Direction, Phase, Rollout, Target
from bot.rollout.wake import RETRY_S, look_due
from bot.rollout.writes import MOVED

LOOKED_AT = frozenset({Phase.PROGRESSING, Phase.AWAITING_APPROVAL, Phase.HOLDING})
PATCH_TAKES_S = 1.0
STALE_PREFLIGHT_S = 30.0
UNSAVED_RETRY_S = 1.0
PREFLIGHT_RETRY_S = 5.0
PAUSE = 0.25
"""Part of the time between two looks that follows one that took nearly as long: a slow Prometheus gets no more
questions."""
SOONEST_S = 0.2
"""No rollout wakes itself more often than this, whatever is overdue."""
CHAIN_LIMIT = 12
PODS_KNOWN_WITHIN_S = 5.0
LATEST_START_S = 3600.0
"""A start that could not begin for longer than this after its time is cancelled."""


@dataclass(slots=True)
class Wake:
    """The work of a rollout's worker.

    `mail` names rollouts whose inbox may hold something new. `rung_outbox` is called when letters were saved,
    `quarantine` with a record that cannot be read and why ("" when it can). `active` counts the rollouts of the whole
    process, which share questions and the chat's limits.
    """

    world: World
    book: Book
    holder: Holder
    keep: Keep
    measure: Measure
    routes: Routes
    paging: Paging
    mail: set[str]
    rung_outbox: Callable[[], None]
    quarantine: Callable[[str, str], None]
    active: Callable[[], int]
    warm_token: int = 0
    warm_until: float = 0.0

    async def __call__(self, rollout_id: str) -> None:
        """Run one wake-up; nothing but cancellation leaves it as an exception that matters."""
        await self.holder.confirm()
        if not self.holder.leading:
            return
        started, token = self.world.clock.monotonic(), self.holder.token
        page = self.book.page(rollout_id) or await self._load(rollout_id)
        if page is None:
            return
        page.token = token
        if page.due_at is not None and (late_s := self.world.clock.now() - page.due_at) >= 0:
            self.world.telemetry.observe("wake_late_seconds", late_s)
        try:
            await self._work(page)
            if not page.closed:
                self._close(page, started)
        except LeaseLost as error:
            self.world.telemetry.failed("lease-lost-on-save", error, rollout=rollout_id)
            if not page.closed:
                await self.holder.doubt(token)
            if not page.closed:
                self.world.timeline.at(rollout_id, self.world.clock.now() + UNSAVED_RETRY_S)
        except Conflict as error:
            self.world.telemetry.failed("record-moved", error, rollout=rollout_id)
            if not page.closed:
                self.book.drop(rollout_id)
            if self.holder.leading:
                self.world.timeline.at(rollout_id, self.world.clock.now() + UNSAVED_RETRY_S)

    async def _load(self, rollout_id: str) -> Page | None:
        """A rollout that was created elsewhere, or lost from memory; none when it was read under another lease, for
        the store may have forgotten everything since."""
        token = self.holder.token
        try:
            rollout = await self.world.rollouts.load(rollout_id)
        except NotFound:
            await self._answer_late(rollout_id, f"There is no record of {rollout_id} any more: nothing was changed.")
            return None
        except Unreadable as error:
            self.quarantine(rollout_id, str(error))
            return None
        except (Transient, Permanent) as error:
            self.world.telemetry.line("record-unread", rollout=rollout_id, error=str(error))
            return None
        if self.holder.token != token:
            if self.holder.leading:
                self.world.timeline.at(rollout_id, self.world.clock.now() + SOONEST_S)
            return None
        self.quarantine(rollout_id, "")
        if rollout.phase.final:
            text = f"{rollout.id} has ended as {rollout.phase}: nothing was changed."
            await self._answer_late(rollout_id, text, rollout.heard)
            return None
        return self.book.open(rollout, None, taken_over=not rollout.touched)

    async def _answer_late(self, rollout_id: str, text: str, heard: Sequence[str] = ()) -> None:
        """People who asked something of a rollout that has ended get their answer, those who had it do not."""
        self.mail.discard(rollout_id)
        requests = await self._requests(rollout_id)
        waiting = [request for request in requests if request.id not in heard]
        answers = [Message(MessageKind.ANSWER, text, tone=Tone.WAIT, reply=request.reply) for request in waiting]
        try:
            if answers:
                await self.world.outbox.add(rollout_id, answers, self.world.clock.now())
                self.rung_outbox()
            if requests:
                await self.world.inbox.done(rollout_id, [request.id for request in requests])
        except (Transient, Permanent) as error:
            self.world.telemetry.line("late-answer-failed", rollout=rollout_id, error=str(error))

    async def _work(self, page: Page) -> None:
        look = False
        if not page.taken_over and not page.rollout.phase.final:
            await self._take_over(page)
            look = page.taken_over
        requests = await self._new_requests(page)
        for request in requests:
            if request.id not in page.answered:
                page.answered |= {request.id}
                look |= await self._feed(page, request)
        try:
            if not page.rollout.phase.final:
                await self._advance(page, look)
        except Conflict:
            raise
        except Exception:
            await self._settle(page, requests)
            raise
        await self._settle(page, requests)

    async def _settle(self, page: Page, requests: tuple[Request, ...]) -> None:
        """Save what was decided, also when the look that should have followed broke: people wait for their answers."""
        saved = await self.keep.save(page)
        if requests and saved:
            await self._heard(page, requests)
        if saved:
            self.rung_outbox()

    async def _take_over(self, page: Page) -> None:
        """Fence the former holder where that is needed, and look at once: its last look may be as old as looks get.

        A fence that could not be written is tried again at the next wake-up.
        """
        failures = page.rollout.write_failures
        route = await self.measure.route(page.rollout)
        if page.rollout.phase is not Phase.ROLLING_BACK:
            await self._pods_known(page.rollout)
        await self._feed(page, route if isinstance(route, RouteGone) else TookOver(route))
        page.taken_over = page.rollout.write_failures <= failures

    async def _pods_known(self, rollout: Rollout) -> None:
        """Wait for the first list of pods: without it every rollout of a fleet would be held, saved and go on again.

        No longer than for some seconds after the lease was gained: gates fail and go back without pods as well.
        """
        now = self.world.clock.monotonic()
        if self.holder.token != self.warm_token:
            self.warm_token, self.warm_until = self.holder.token, now + PODS_KNOWN_WITHIN_S
        if now < self.warm_until:
            with suppress(TimeoutError, Transient, Permanent):
                async with asyncio.timeout(self.warm_until - now):
                    await self.world.cluster.pods(rollout.target.namespace, rollout.target.canary.selector)

    async def _new_requests(self, page: Page) -> tuple[Request, ...]:
        """What people ask of a rollout, when somebody may have asked since the last wake-up: a ring or the sweep says
        so."""
        if page.inbox_read and page.rollout.id not in self.mail:
            return ()
        self.mail.discard(page.rollout.id)
        page.inbox_read = True
        return await self._requests(page.rollout.id)

    async def _requests(self, rollout_id: str) -> tuple[Request, ...]:
        """What people ask; nothing while the store is known to be away, so that nobody waits for it to time out."""
        if self.holder.store_away:
            return ()
        try:
            return await self.world.inbox.take(rollout_id)
        except (Transient, Permanent) as error:
            self.world.telemetry.line("inbox-unread", rollout=rollout_id, error=str(error))
            return ()

    async def _heard(self, page: Page, requests: tuple[Request, ...]) -> None:
        try:
            await self.world.inbox.done(page.rollout.id, [request.id for request in requests])
        except (Transient, Permanent) as error:
            self.world.telemetry.line("inbox-not-cleared", rollout=page.rollout.id, error=str(error))
        else:
            page.answered -= {request.id for request in requests}

    async def _advance(self, page: Page, look: bool) -> None:
        """What time brings: the start, a look at the gates, or only the clock."""
        now = self.world.clock.now()
        if page.rollout.phase is Phase.SCHEDULED:
            if now < page.rollout.scheduled_at:
                await self._feed(page, await self.measure.clocked(page.rollout))
                return
            begins = await self._due(page.rollout)
            if begins is None:
                page.wake_at = now + PREFLIGHT_RETRY_S
                return
            await self._feed(page, begins)
            if page.rollout.phase.final:
                return
            look = True
        if page.rollout.phase not in LOOKED_AT or not (look or _look_due(page, now)):
            await self._feed(page, await self.measure.clocked(page.rollout))
            return
        again = True
        for _ in range(3):
            if not again or page.rollout.phase not in LOOKED_AT:
                return
            page.looked_at = self._begins(page)
            looked = await self.measure.look(page.rollout)
            again = await self._feed(page, replace(looked, card_every_s=card_every_s(self.active())))

    def _begins(self, page: Page) -> float:
        """When this look begins (epoch seconds): the moment it was due, so that it does not drift away from those that
        it shares its questions with."""
        now = self.world.clock.now()
        if page.due_at is None or now < page.due_at:
            return now
        return in_step(page.due_at, now, page.rollout.rules.check_every_s)

    async def _due(self, rollout: Rollout) -> Due | None:
        """Preflight once more for a start whose preflight is old; None when the API server cannot be asked now.

        A start that is long overdue (no holder, no API server) begins at no hour that nobody chose.
        """
        now = self.world.clock.now()
        late_s = now - rollout.scheduled_at
        if late_s > LATEST_START_S:
            return Due((f"it was due {spoken(late_s)} ago, when it could not begin. Start it again when it suits.",))
        if now - rollout.created_at < STALE_PREFLIGHT_S:
            return Due()
        target = rollout.target
        wanted = Wanted(
            service=target.service,
            namespace=target.route.namespace,
            mesh=target.route.mesh,
            name=target.route.name,
            route=target.route.route,
            protocol=target.route.protocol,
            canary=target.canary.label,
            adopt=rollout.weight_percent > 0,
        )
        first = rollout.next_step or rollout.plan.steps[-1]
        try:
            survey = await self.world.meshes[target.route.mesh].survey(wanted, first.weight_percent)
        except Transient as error:
            self.world.telemetry.line("preflight-put-off", rollout=rollout.id, error=str(error))
            return None
        except (Permanent, Conflict) as error:
            return Due((f"{error}.",))
        problems = [finding.told for finding in survey.refusals]
        found = survey.target
        if found is not None and not problems and not _same_route(found, target):
            problems = [f"the route of {target.service} is not what it was when this start was scheduled"]
        catalog = self.world.catalog()
        listed = catalog.entry(target.service, target.namespace).listed
        if not listed and not catalog.covers(target.route.namespace):
            problems.append(
                f"the catalog no longer allows `{target.route.namespace}` for services that it does not name"
            )
        return Due(tuple(problems), fingerprint=found.fingerprint if found is not None else "")

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
                if isinstance(pending, Request):
                    text = f"Nothing changed: `{pending.verb}` is not known here."
                    page.say(Message(MessageKind.ANSWER, text, tone=Tone.WAIT, urgent=True, reply=pending.reply))
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
                if page.token != self.holder.token:
                    return WriteFailed(revision, "no-lease", "the lease was taken anew while this was decided")
                if not await self.keep.save(page):
                    return WriteFailed(revision, "unsaved", "the decision could not be saved: Redis does not answer")
                if effect.direction is Direction.RAISE and (frozen := await self._frozen(page.rollout)):
                    return WriteFailed(revision, "frozen", frozen)
                if effect.direction is Direction.RAISE:
                    may_write = await self.holder.may_raise(page.token, PATCH_TAKES_S)
                else:
                    may_write = self.holder.holds_for(PATCH_TAKES_S)
                if not may_write:
                    return WriteFailed(revision, "no-lease", "this process does not hold the lease for long enough")
                return await self._write(page, effect)

    async def _frozen(self, rollout: Rollout) -> str:
        """Why a freeze forbids a raise, "" when none does. Read last of all: a freeze that was announced binds."""
        try:
            freezes = await self.measure.freezes_now()
        except (Transient, Permanent) as error:
            return f"nobody can say whether a freeze stands: {error}"
        now = self.world.clock.now()
        binding = next((one for one in freezes if one.covers(rollout.target.service, now)), None)
        return f"a freeze has begun: {binding.reason}" if binding else ""

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
        except Overwritten as error:
            return await self._not_written(page, change, "overwritten", str(error))
        except Conflict as error:
            if lost := await self._lost_mark(page.rollout, change):
                return await self._write(page, replace(change, over=lost))
            return await self._not_written(page, change, "conflict", str(error))
        except Permanent as error:
            return await self._not_written(page, change, "refused", str(error))
        except Transient as error:
            return await self._not_written(page, change, "transient", str(error))
        except Exception as error:
            self.world.telemetry.failed("write-broken", error, rollout=page.rollout.id)
            return await self._not_written(page, change, "broken", f"a fault of the bot ({type(error).__name__})")
        finally:
            took_s = self.world.clock.monotonic() - started
            self.world.telemetry.observe("route_write_seconds", took_s)
        self.routes.put(target, state)
        self.world.telemetry.count("weight_changes", direction=change.direction.value)
        return Written(revision, change.weight_percent, state)

    async def _lost_mark(self, rollout: Rollout, change: SetWeight) -> str:
        """The rollout whose live mark keeps `rollout` from 0 although the store has lost it: a raise of it arrived
        after that, and the route was free for another start. "" when there is none, or nobody can know."""
        if change.direction is not Direction.ZERO or change.over or self.holder.store_away:
            return ""
        route = await self.measure.route(rollout)
        if isinstance(route, RouteGone) or route is None or route.mark is None or route.mark.rollout == rollout.id:
            return ""
        try:
            if (await self.world.rollouts.load(rollout.id)).phase.final:
                return ""
        except (Transient, Permanent):
            return ""
        try:
            await self.world.rollouts.load(route.mark.rollout)
        except NotFound:
            return route.mark.rollout
        except (Transient, Permanent):
            pass
        return ""

    async def _not_written(self, page: Page, change: SetWeight, kind: str, detail: str) -> Event:
        """Why a change did not happen, with the route as it is where that decides what now: somebody else may have
        changed it, or have sent the canary to 0 by hand."""
        if kind not in MOVED and change.direction is not Direction.ZERO:
            return WriteFailed(change.mark.revision, kind, detail)
        route = await self.measure.route(page.rollout)
        if isinstance(route, RouteGone):
            return route
        return WriteFailed(change.mark.revision, kind, detail, route)

    def _close(self, page: Page, started: float) -> None:
        """Set the next wake-up, forget what has ended, and say what was done."""
        rollout = page.rollout
        unsaved = page.dirty or page.unsure is not None
        if rollout.phase.final and not unsaved:
            self.book.drop(rollout.id)
            self.routes.forget(rollout.target)
            self.measure.forget(rollout.id)
            self.world.timeline.cancel(rollout.id)
        else:
            now = self.world.clock.now()
            wake_at = page.wake_at if page.wake_at is not None else now + UNSAVED_RETRY_S
            wake_at = min(wake_at, now + UNSAVED_RETRY_S) if unsaved else wake_at
            if rollout.phase in LOOKED_AT:
                wake_at = min(wake_at, _next_look(page, now, self.world.clock.monotonic() - started))
            elif rollout.phase is Phase.ROLLING_BACK:
                wake_at = min(wake_at, now + max(RETRY_S))
            if rollout.phase in LOOKED_AT and rollout.approval is None and not unsaved:
                wake_at = shared_moment(wake_at, rollout.rules.check_every_s, self.active())
            page.due_at = max(wake_at, now + SOONEST_S)
            self.world.timeline.at(rollout.id, page.due_at)
        self.world.telemetry.observe("wake_seconds", self.world.clock.monotonic() - started)
        told = _told(rollout)
        if page.told != told or unsaved:
            page.told = told
            self._tell(page, saved=not unsaved)

    def _tell(self, page: Page, *, saved: bool) -> None:
        """The line of a wake-up after which something is otherwise than after the last: thousands are not."""
        rollout = page.rollout
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
            next_in_s=None if page.due_at is None else round(page.due_at - self.world.clock.now(), 1),
            saved=saved,
        )


def _told(rollout: Rollout) -> int:
    """What a line would say of a rollout, as a number to compare."""
    verdicts = tuple(report.verdict for report in rollout.assessment.reports) if rollout.assessment else ()
    return hash((rollout.phase, rollout.revision, rollout.hold_reasons, verdicts))


def _look_due(page: Page, now: float) -> bool:
    """Looks begin `check_every_s` apart, however long each takes: as if the last had been answered when it began."""
    look = page.rollout.assessment
    took_s = 0.0 if look is None or page.looked_at is None else max(0.0, look.at - page.looked_at)
    return look_due(page.rollout, now + took_s)


def _next_look(page: Page, now: float, took_s: float) -> float:
    """When the next look begins (epoch seconds): in time, but with a pause after one that took very long. A look that
    began after `now` began before the clock was set back, and puts off nothing."""
    every_s = page.rollout.rules.check_every_s
    begun_at = now if page.looked_at is None else min(now, page.looked_at)
    pause_s = every_s * PAUSE
    return max(begun_at + every_s, now + pause_s if took_s > every_s - pause_s else now)


def _same_route(one: Target, other: Target) -> bool:
    """The same object, route and destinations; what runs behind them may have changed."""
    return (one.route.uid, one.route.key) == (other.route.uid, other.route.key) and (
        (one.stable.destination, one.canary.destination) == (other.stable.destination, other.canary.destination)
    )
