"""Start a rollout: find the route, examine it, and take it. A dry run stops before anything is taken."""

from dataclasses import dataclass, replace

from bot.analysis.assessment import questions
from bot.analysis.expectation import Expectation, baseline_question, expect
from bot.analysis.requests import separable
from bot.catalog import ServiceEntry
from bot.errors import CanaryError, RouteTaken, UserError
from bot.ports.mesh import Finding, Severity, Survey
from bot.rollout.gate import GateSpec
from bot.rollout.model import Bake, Freeze, Rollout, Target
from bot.rollout.plan import Plan
from bot.rollout.start import opening, scheduled
from bot.rollout.wake import wake_at
from bot.usecases.desk import Desk
from bot.usecases.entries import plan_of, wanted_of
from bot.usecases.permission import require
from bot.usecases.routers import router
from bot.usecases.who import Who


@dataclass(frozen=True, slots=True)
class StartAsk:
    """What a person said after `start`; "" and None mean: as the catalog or the route says.

    `gates` replace or add to the service's, `at` is epoch seconds.
    """

    service: str
    subset: str = ""
    plan: str = ""
    steps: str = ""
    gates: tuple[GateSpec, ...] = ()
    at: float | None = None
    namespace: str = ""
    adopt: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Started:
    """What came of it: `rollout` None on a dry run; `expected` requests per step at today's traffic, None unknown.

    `shows_s` are the seconds each step needs at that traffic to show a breach of twice the limit, None unknown.
    """

    rollout: Rollout | None
    survey: Survey
    plan: Plan
    gates: tuple[GateSpec, ...]
    findings: tuple[Finding, ...]
    queries: tuple[str, ...] = ()
    expected: tuple[int | None, ...] = ()
    shows_s: tuple[float | None, ...] = ()


async def start(desk: Desk, ask: StartAsk, who: Who) -> Started:
    """Preflight, then take id and route together and ring the holder.

    Raises UserError listing everything that stands in the way, Refused, Transient when API server or store is away.
    """
    catalog = desk.catalog()
    entry = catalog.entry(ask.service, ask.namespace)
    person = await require(desk, "start", ask.service, who, ask.namespace)
    plan = plan_of(catalog, entry, ask.plan, ask.steps)
    mesh = router(desk, entry.mesh)
    wanted = wanted_of(entry, ask.namespace, canary=ask.subset, adopt=ask.adopt)
    survey = await mesh.survey(wanted, plan.steps[0].weight_percent)
    findings = (*survey.findings, *await _frozen(desk, ask), *await _active(desk, survey.target))
    if survey.target is None:
        raise UserError(_refusal(ask.service, findings))
    _same_entry(desk, entry, survey.target)
    gates = _gates(entry.gates_for(survey.target.route.protocol), ask.gates)
    now = desk.clock.now()
    rollout = scheduled(
        id=f"{ask.service}-{desk.new_id()[:4]}",
        target=survey.target,
        plan=plan,
        gates=gates,
        rules=entry.rules,
        by=who.called(person.name).actor,
        now=now,
        at=ask.at,
        start_weight=survey.start_weight,
    )
    question = baseline_question(rollout.target)
    expectation = expect(rollout, await desk.metrics.ask([question]))
    told = await _heard(desk, entry.rules.channel)
    findings = (*findings, *told, *_told_apart(survey.target), *_measured(ask.service, expectation))
    queries = tuple(query.promql for query in questions(_as_if_baking(rollout, now), now))
    answer = Started(None, survey, plan, gates, findings, queries, expectation.steps, expectation.shows_s)
    if ask.dry_run:
        return answer
    if any(finding.severity is Severity.REFUSE for finding in findings):
        raise UserError(_refusal(ask.service, findings))
    first = opening(rollout, now)
    try:
        await desk.rollouts.create(first.rollout, wake_at(first.rollout, now) or now, first.messages, first.audit)
    except RouteTaken as error:
        raise UserError(
            f"{error.rollout_id} is already running on this route. Nothing was started.",
            f"See `/canary status {error.rollout_id}`.",
        ) from error
    await desk.inbox.ring(first.rollout.id)
    return replace(answer, rollout=first.rollout)


def _same_entry(desk: Desk, entry: ServiceEntry, target: Target) -> None:
    """UserError for a route without entry here that belongs to another service of the catalog, whose roles, gates and
    freezes count, or that lies outside the catalog's namespaces."""
    if entry.listed:
        return
    catalog = desk.catalog()
    owner = catalog.owner(target)
    if owner is not None and owner.name != entry.name:
        raise UserError(
            f"The route of `{entry.name}` is that of `{owner.name}` in the catalog. Nothing was started.",
            f"Start it by that name: `/canary start {owner.name}`.",
        )
    if not catalog.covers(target.route.namespace):
        raise UserError(
            f"`{entry.name}` has no entry in the catalog, and the catalog does not list the namespace of its route, "
            f"`{target.route.namespace}`. Nothing was started.",
            "Add the service to the catalog, or the namespace to its `namespaces`.",
        )


def _gates(given: tuple[GateSpec, ...], said: tuple[GateSpec, ...]) -> tuple[GateSpec, ...]:
    """The service's gates with those of the command put in their place; minimum requests stay the catalog's."""
    by_name = {gate.name: gate for gate in given}
    for gate in said:
        former = by_name.get(gate.name)
        if former is None and gate.kind == "custom":
            raise UserError(
                f"There is no gate called `{gate.name}` in the catalog. Nothing was started.",
                f"Gates: {', '.join(f'`{name}`' for name in by_name)}.",
            )
        by_name[gate.name] = (
            replace(former, limit=gate.limit, relation=gate.relation, unit=gate.unit) if former else gate
        )
    return tuple(by_name.values())


async def _frozen(desk: Desk, ask: StartAsk) -> tuple[Finding, ...]:
    """A freeze in force refuses a start now; a scheduled one waits for its end when it is due."""
    now = desk.clock.now()
    if ask.at is not None and ask.at > now:
        return ()
    return tuple(_freeze_finding(freeze) for freeze in await desk.freezes.all() if freeze.covers(ask.service, now))


def _freeze_finding(freeze: Freeze) -> Finding:
    scope = "everything" if freeze.scope == "all" else freeze.scope
    return Finding(
        "freeze",
        Severity.REFUSE,
        f"{scope} is frozen by {freeze.by.name or freeze.by.id}: {freeze.reason}.",
        f"`/canary unfreeze {freeze.scope}` lifts it; `/canary freezes` says until when it lasts.",
    )


async def _active(desk: Desk, target: Target | None) -> tuple[Finding, ...]:
    """Another rollout on the same route, told before anything is tried."""
    if target is None:
        return ()
    return tuple(
        Finding(
            "active rollout",
            Severity.REFUSE,
            f"{one.id} is already running on this route ({one.phase}).",
            f"See `/canary status {one.id}`.",
        )
        for one in await desk.rollouts.outlines()
        if one.route == target.route.key
    )


async def _heard(desk: Desk, channel: str) -> tuple[Finding, ...]:
    """Whether somebody can hear of it. What the chat cannot tell stops no start: messages wait for it."""
    item, way_on = "channel", "Make it, or ask the bot in (`/invite`), or name another as `channel` in the catalog."
    if not channel:
        return (Finding(item, Severity.WARN, "No channel is named, so the channel hears nothing of it.", way_on),)
    try:
        there = await desk.directory.hears(channel)
    except CanaryError as error:
        return (Finding(item, Severity.WARN, f"Whether {channel} is there could not be asked: {error}."),)
    text = f"{channel} is not there, archived, or private without the bot: nobody would be told or asked."
    return () if there else (Finding(item, Severity.REFUSE, text, way_on),)


def _told_apart(target: Target) -> tuple[Finding, ...]:
    """The two sides have a workload or a version label of their own; else no series says whose requests it counts."""
    if target.route.protocol != "http" or separable(target):
        return ()
    stable, canary = target.stable.label, target.canary.label
    text = f"{stable} and {canary} share their workloads and their version label, so metrics cannot tell them apart"
    return (Finding("metrics", Severity.REFUSE, text, "Give their pods different `version` labels."),)


def _measured(service: str, expectation: Expectation) -> tuple[Finding, ...]:
    """Whether the gates will have anything to go by.

    A canary that has never had a request has no series yet, so only the service as a whole must have some.
    """
    item = "metrics"
    if expectation.error:
        text = f"Prometheus could not be asked about {service}: {expectation.error}."
        return (Finding(item, Severity.REFUSE, text, "Start again when it answers; nothing is judged blindly."),)
    if not expectation.measured:
        text = f"Prometheus has no Istio series of {service}: its gates would never pass."
        way_on = "Are its sidecars scraped? See `istio_requests_total` with its `destination_service`."
        return (Finding(item, Severity.REFUSE, text, way_on),)
    found = [Finding(item, Severity.WARN, text, "It will wait for more samples.") for text in expectation.thin]
    if expectation.slow:
        found.append(Finding("what could be seen", Severity.OK, expectation.slow))
    if not expectation.canary_seen:
        found.append(Finding(item, Severity.OK, "The canary has no series yet: it has had no requests."))
    return tuple(found)


def _as_if_baking(rollout: Rollout, now: float) -> Rollout:
    """The first step as it will be ten minutes in, to show the queries it will ask."""
    step = rollout.plan.steps[0]
    begun = now - step.bake_s
    return rollout.with_(step=0, weight_percent=step.weight_percent, bake=Bake(confirmed_at=begun, arrived_at=begun))


def _refusal(service: str, findings: tuple[Finding, ...]) -> str:
    refusals = [finding for finding in findings if finding.severity is Severity.REFUSE]
    lines = [f"• {finding.told}" for finding in refusals]
    return "\n".join([f"{service} was not started, and nothing was changed:", *lines])
