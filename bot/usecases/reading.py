"""What people may look at: rollouts, gates as they are now, nodes, plans, services. Changes nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

from bot.analysis.assessment import assess, questions
from bot.analysis.facts import PodFacts
from bot.analysis.nodes import NodeHealth, judge_node_history, node_history_questions
from bot.errors import Permanent, Transient, UserError
from bot.rollout.gate import Assessment
from bot.rollout.model import Actor, Bake, Phase, Rollout, Side, Source, Target
from bot.rollout.plan import Plan
from bot.rollout.start import scheduled
from bot.usecases.desk import Desk
from bot.usecases.entries import wanted_of
from bot.usecases.requests import resolve
from bot.usecases.routers import router

LOOK_BACK_S = 600.0
LISTED = 100
"""A table in Slack has no more rows."""


@dataclass(frozen=True, slots=True)
class GatesLook:
    """The gates of a service as they judge now; `active` is the rollout they were asked for, None when none runs."""

    target: Target
    assessment: Assessment
    active: Rollout | None
    queries: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """How many rollouts are active, the first `LISTED` of them, oldest first, and the records that cannot be read."""

    count: int
    first: tuple[Rollout, ...]
    unreadable: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node: its health and the active rollouts whose pods run there."""

    health: NodeHealth
    rollouts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceView:
    """One service that can be steered; `active` is the id of its running rollout, "" for none."""

    service: str
    namespace: str
    subsets: tuple[str, ...]
    active: str = ""


async def status(desk: Desk, what: str) -> Rollout:
    """One rollout, active or finished, by id or service."""
    try:
        return await resolve(desk, what)
    except UserError:
        for rollout in await desk.rollouts.finished(limit=200):
            if what in (rollout.id, rollout.target.service):
                return rollout
        raise


async def listing(desk: Desk) -> Listing:
    """What is active."""
    outlines = sorted(await desk.rollouts.outlines(), key=lambda one: one.created_at)
    first = await desk.rollouts.loaded([one.id for one in outlines[:LISTED]])
    active = sorted((one for one in first if not one.phase.final), key=lambda one: one.created_at)
    return Listing(len(outlines) - len(first) + len(active), tuple(active), await desk.rollouts.quarantined())


async def pending(desk: Desk) -> tuple[Rollout, ...]:
    """Rollouts that wait for people, oldest first: an approval, or a hold that only a person can lift."""
    waiting = (Phase.AWAITING_APPROVAL, Phase.HOLDING)
    names = [one.id for one in await desk.rollouts.outlines() if one.phase in waiting]
    found = [rollout for rollout in await desk.rollouts.loaded(names) if rollout.phase in waiting]
    return tuple(sorted(found, key=lambda rollout: rollout.created_at))


async def history(desk: Desk, service: str = "", limit: int = 20) -> tuple[Rollout, ...]:
    """Finished rollouts, newest first."""
    return await desk.rollouts.finished(service, limit)


async def gates(desk: Desk, service: str, namespace: str = "") -> GatesLook:
    """Judge now. Without a running rollout the last ten minutes are judged, with the route's other side as canary."""
    now = desk.clock.now()
    active = await _running(desk, service)
    rollout = active or await _imagined(desk, service, namespace, now)
    asked = questions(rollout, now)
    answers = await desk.metrics.ask(asked)
    assessment = assess(
        rollout,
        desk.clock.now(),
        answers,
        canary_pods=await _pods(desk, rollout.target, rollout.target.canary),
        stable_pods=await _pods(desk, rollout.target, rollout.target.stable),
        nodes=await _nodes_if_known(desk, now),
    )
    return GatesLook(rollout.target, assessment, active, tuple(query.promql for query in asked))


async def _running(desk: Desk, service: str) -> Rollout | None:
    """The oldest active rollout of a service, or the one of that id."""
    meant = [one for one in await desk.rollouts.outlines() if service in (one.service, one.id)]
    if not meant:
        return None
    oldest = await desk.rollouts.load(min(meant, key=lambda one: one.created_at).id)
    return None if oldest.phase.final else oldest


async def _imagined(desk: Desk, service: str, namespace: str, now: float) -> Rollout:
    """A rollout ten minutes into its first step, for services that have none."""
    entry = desk.catalog().entry(service, namespace)
    survey = await router(desk, entry.mesh).survey(
        wanted_of(entry, namespace, adopt=True), entry.plan.steps[0].weight_percent
    )
    if survey.target is None:
        raise UserError(
            f"The gates of `{service}` cannot be asked.",
            " ".join(finding.told for finding in survey.refusals),
        )
    begun = now - LOOK_BACK_S
    first = scheduled(
        id=f"{service}-look",
        target=survey.target,
        plan=entry.plan,
        gates=entry.gates_for(survey.target.route.protocol),
        rules=entry.rules,
        by=Actor(Source.BOT),
        now=begun,
    )
    return first.with_(
        step=0, weight_percent=survey.start_weight, bake=Bake(confirmed_at=begun, arrived_at=begun, covered_until=begun)
    )


async def nodes(desk: Desk) -> tuple[NodeView, ...]:
    """Every node with its health judged from the last minutes, worst first, and the rollouts it touches."""
    now = desk.clock.now()
    healths = await _healths(desk, now)
    touched: dict[str, set[str]] = {}
    for rollout, _ in (await desk.rollouts.active()).rollouts:
        for side in (rollout.target.canary, rollout.target.stable):
            for pod in await _pods(desk, rollout.target, side) or ():
                touched.setdefault(pod.node, set()).add(rollout.id)
    views = [NodeView(health, tuple(sorted(touched.get(name, ())))) for name, health in healths.items()]
    return tuple(sorted(views, key=lambda view: (-view.health.level, view.health.name)))


async def _healths(desk: Desk, now: float) -> Mapping[str, NodeHealth]:
    """Nodes by name, judged from the last minutes: whoever asks has not watched them."""
    facts = await desk.cluster.nodes()
    answers = await desk.metrics.ask(node_history_questions())
    return judge_node_history(facts, answers, now, desk.catalog().nodes)


async def _nodes_if_known(desk: Desk, now: float) -> Mapping[str, NodeHealth]:
    try:
        return await _healths(desk, now)
    except (Transient, Permanent):
        return {}


def plans(desk: Desk) -> Mapping[str, Plan]:
    """The catalog's plans by name."""
    return desk.catalog().plans


async def services(desk: Desk) -> tuple[ServiceView, ...]:
    """Services of the catalog and every other route that may be steered."""
    catalog = desk.catalog()
    running = sorted(await desk.rollouts.outlines(), key=lambda one: one.created_at)
    active = {one.service: one.id for one in running}
    views = {
        name: ServiceView(name, entry.namespace, entry.subsets, active.get(name, ""))
        for name, entry in catalog.services.items()
    }
    for mesh in desk.meshes.values():
        for listed in await mesh.listed(desk.namespaces):
            known = views.get(listed.service)
            if known is None and not catalog.covers(listed.namespace):
                continue
            if known is None:
                views[listed.service] = ServiceView(
                    listed.service, listed.namespace, listed.subsets, active.get(listed.service, "")
                )
            elif not known.subsets:
                views[listed.service] = ServiceView(
                    known.service, known.namespace or listed.namespace, listed.subsets, known.active
                )
    return tuple(sorted(views.values(), key=lambda view: view.service))


async def _pods(desk: Desk, target: Target, side: Side) -> tuple[PodFacts, ...] | None:
    try:
        return await desk.cluster.pods(target.namespace, side.selector)
    except (Transient, Permanent):
        return None
