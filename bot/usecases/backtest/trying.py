"""Try a service's gates on its own past, before anybody trusts them with a release. Changes nothing."""

from dataclasses import dataclass, field

from bot.analysis.backtest import Backtest, begins, duration_s, imagined, look_spacing
from bot.analysis.history import History
from bot.catalog import ServiceEntry
from bot.errors import UserError
from bot.rollout.duration import spoken
from bot.rollout.model import Target
from bot.rollout.plan import Plan
from bot.usecases.backtest.judging import Judging
from bot.usecases.backtest.reading import Reader
from bot.usecases.backtest.wish import LONGEST_S, PRIVATELY, Allowance, BacktestAsk, Means, Progress, quiet
from bot.usecases.desk import Desk
from bot.usecases.entries import plan_of, wanted_of
from bot.usecases.routers import router

EVERY_S = 900.0
FEWEST_RUNS = 20
MOST_RUNS = 3000


async def backtest(desk: Desk, ask: BacktestAsk, means: Means = PRIVATELY, progress: Progress = quiet) -> Backtest:
    """Imagine rollouts of stable over the history and judge them; one at a time in a process.

    Raises UserError for an unknown service or plan, a Prometheus that does not answer, a history without requests or
    shorter than the plan, and when it takes too long.
    """
    if not 0 < ask.since_s <= LONGEST_S:
        raise UserError("A backtest looks back at most 30 days.", "For example `--since 24h`.")
    if desk.backtesting.locked():
        raise UserError("Another backtest is under way here.", "Ask again in a minute.")
    async with desk.backtesting:
        return await _Backtest(desk, ask, means, progress).made()


@dataclass(frozen=True, slots=True)
class _Backtest:
    desk: Desk
    ask: BacktestAsk
    means: Means
    progress: Progress
    notes: list[str] = field(default_factory=list)

    async def made(self) -> Backtest:
        ask = self.ask
        allowance = Allowance.from_now(self.desk.clock, self.means.limit_s)
        catalog = self.desk.catalog()
        entry = catalog.entry(ask.service, ask.namespace)
        plan = plan_of(catalog, entry, ask.plan, ask.steps)
        self.progress("finding the route", 0.0)
        target = await _target(self.desk, ask, entry, plan)
        gates = entry.gates_for(target.route.protocol)
        if target.route.protocol != "http":
            raise UserError(f"`{ask.service}` is a {target.route.protocol} route: its past has no requests to count.")
        now = self.desk.clock.now()
        reader = Reader(self.desk.metrics, allowance, self.means.parallel, self.progress, self.notes)
        history = await reader.history(target, gates, ask.since_s, now)
        begin = self._begin(history, now)
        every_s, moments = self._moments(plan, begin, now, history.interval_s)
        look_every_s = look_spacing(
            plan, entry.rules.check_every_s, history.interval_s, len(moments), self.means.looks_max
        )
        if look_every_s > max(entry.rules.check_every_s, history.interval_s) + 0.001:
            self.notes.append(
                f"The gates were looked at every {spoken(look_every_s)} instead of every "
                f"{spoken(entry.rules.check_every_s)}, to be done in time."
            )
        base = imagined(target, plan, gates, entry.rules, begin)
        known = await reader.recorded(history, base, look_every_s, begin, now)
        judging = Judging(known, moments, look_every_s, self.means.attempts, allowance, self.progress, self.notes)
        results = await judging.results(base, gates)
        return Backtest(
            service=ask.service,
            stable=target.stable.label,
            plan=plan,
            begin=begin,
            end=now,
            every_s=every_s,
            look_every_s=look_every_s,
            runs=len(moments),
            requests=history.requests(begin, now),
            gates=results,
            notes=tuple(self.notes),
        )

    def _begin(self, history: History, now: float) -> float:
        """Where the imagined rollouts begin: as asked, or later when there is no history before."""
        wanted = now - self.ask.since_s
        first_at = history.first_request_at
        service, since = self.ask.service, spoken(self.ask.since_s)
        if history.first_at is None:
            raise UserError(
                f"Prometheus has no samples of `{service}` in the last {since}.",
                "Is it scraped? See `istio_requests_total` with its `destination_service`; or look further back.",
            )
        if first_at is None or history.requests(wanted, now) < 1:
            raise UserError(
                f"`{service}` had no requests in the last {since}: there is nothing to try the gates on.",
                "Look further back, as in `--since 7d`.",
            )
        first_at -= history.interval_s
        if first_at <= wanted + max(60.0, 0.02 * self.ask.since_s):
            return wanted
        self.notes.append(f"Prometheus has {spoken(now - first_at)} of its requests, not {since}: these were used.")
        return first_at

    def _moments(self, plan: Plan, begin: float, now: float, interval_s: float) -> tuple[float, tuple[float, ...]]:
        room_s = now - begin - duration_s(plan, interval_s)
        if room_s < 0:
            raise UserError(
                f"The plan takes {spoken(duration_s(plan, interval_s))}, and there are only {spoken(now - begin)} of "
                f"history.",
                "Look further back with `--since`, or try shorter steps, as in `--steps 50%:1m,100%:1m`.",
            )
        every_s = self.ask.every_s or max(interval_s, min(EVERY_S, room_s / FEWEST_RUNS))
        moments = begins(begin, now, plan, every_s, interval_s)
        if len(moments) > MOST_RUNS:
            raise UserError(
                f"That would be {len(moments):,} rollouts; at most {MOST_RUNS:,} are imagined.",
                "Begin them less often, as in `--every 15m`.",
            )
        return every_s, moments


async def _target(desk: Desk, ask: BacktestAsk, entry: ServiceEntry, plan: Plan) -> Target:
    survey = await router(desk, entry.mesh).survey(
        wanted_of(entry, ask.namespace, adopt=True), plan.steps[0].weight_percent
    )
    if survey.target is None:
        raise UserError(
            f"The gates of `{ask.service}` cannot be tried.",
            " ".join(finding.told for finding in survey.refusals),
        )
    return survey.target
