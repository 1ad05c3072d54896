"""What a catalog entry means for one request: the plan, and what the router is asked to find."""

from bot.catalog import Catalog, ServiceEntry
from bot.errors import UserError
from bot.ports.mesh import Wanted
from bot.rollout.plan import Plan, parse_steps


def plan_of(catalog: Catalog, entry: ServiceEntry, plan: str, steps: str) -> Plan:
    """The plan that was typed as steps or named, "" and "" for the service's own; UserError names the known ones."""
    if steps:
        return parse_steps(steps)
    if not plan:
        return entry.plan
    if plan not in catalog.plans:
        known = ", ".join(f"`{name}`" for name in sorted(catalog.plans)) or "none in the catalog"
        raise UserError(
            f"There is no plan called `{plan}`. Nothing was started.",
            f"Plans: {known}. Or give the steps: `steps 5%:10m,50%:10m,100%:10m`.",
        )
    return catalog.plans[plan]


def wanted_of(entry: ServiceEntry, namespace: str = "", *, canary: str = "", adopt: bool = False) -> Wanted:
    """What to look for in the mesh; `namespace`, `canary` "" as the catalog or the route says."""
    return Wanted(
        service=entry.name,
        namespace=namespace or entry.namespace,
        mesh=entry.mesh,
        name=entry.route_name,
        route=entry.route,
        protocol=entry.protocol,
        canary=canary,
        subsets=entry.subsets,
        adopt=adopt,
    )
