"""From text to catalog: each part is read by itself, so that an error in one hides none in another."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from bot.analysis.nodes import NodeLimits, Threshold
from bot.catalog.document import Document, Path, read
from bot.catalog.errors import CatalogErrors
from bot.catalog.gating import Gates, resolved, specs
from bot.catalog.model import Catalog, Roles, ServiceEntry, nearest
from bot.catalog.schema import (
    NAMESPACE,
    PLAN_NAME,
    SERVICE_NAME,
    ApprovalShape,
    CommonShape,
    DefaultsShape,
    GateShape,
    LevelsShape,
    NodesShape,
    PlanShape,
    ServiceShape,
)
from bot.errors import UserError
from bot.rollout.model import ApprovalPolicy, OnSilence, Rules
from bot.rollout.plan import DEFAULT_PLAN, Plan, parse_steps

SECTIONS = ("defaults", "plans", "gates", "services", "nodes", "namespaces")

_Shape = TypeVar("_Shape", bound=BaseModel)


def load(text: str, source: str = "catalog.yaml") -> Catalog:
    """The catalog of a YAML text; an empty one is a catalog of defaults.

    Raises:
        CatalogErrors: with everything that is wrong, by path and line.
    """
    document = read(text, source)
    for key in document.data:
        if key not in SECTIONS:
            document.refuse((key,), _unknown(key, SECTIONS))
    defaults = _part(document, ("defaults",), DefaultsShape, document.data.get("defaults")) or DefaultsShape()
    plans = _plans(document)
    gates = _gates(document, ("gates",), _section(document, ("gates",), document.data.get("gates")), {})
    fallback = _entry(document, ("defaults",), "", defaults, ServiceShape(), plans, gates)
    services = _services(document, defaults, plans, gates)
    nodes = _nodes(document)
    namespaces = _namespaces(document)
    if document.errors:
        raise CatalogErrors(source, tuple(document.errors))
    known = {name: plan for name, plan in plans.items() if plan is not None}
    return Catalog(services, known, nodes, namespaces, replace(fallback, listed=False))


def _unknown(key: str, known: tuple[str, ...]) -> str:
    near = nearest(key, known)
    return f"is not known here; {f'was `{near[0]}` meant?' if near else 'known are ' + ', '.join(known)}"


def _section(document: Document, path: Path, data: Any) -> dict[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        document.refuse(path, "expected keys with values under it")
        return {}
    return data


def _named(document: Document, path: Path, what: str, pattern: re.Pattern[str]) -> dict[str, Any]:
    section = _section(document, path, document.data.get(str(path[0])))
    for name in section:
        if not pattern.fullmatch(name):
            document.refuse((*path, name), f"cannot be the name of a {what}")
    return section


def _part(document: Document, path: Path, shape: type[_Shape], data: Any) -> _Shape | None:
    """One part in its shape, with the errors noted; without the keys that are wrong, None when that is no part."""
    section = _section(document, path, data)
    if data is not None and not isinstance(data, dict):
        return None
    empty = [key for key, value in section.items() if value is None and key in shape.model_fields]
    for key in empty:
        hint = ': "#" begins a comment, put the channel in quotes' if key == "channel" else ""
        document.refuse((*path, key), f"has no value{hint}")
    given = {key: value for key, value in section.items() if key not in empty}
    try:
        return shape.model_validate(given)
    except ValidationError as invalid:
        for error in invalid.errors(include_url=False):
            place = _within(section, tuple(error["loc"]))
            document.refuse((*path, *place), _sentence(dict(error), shape, place))
            given.pop(str(error["loc"][0]), None)
    with suppress(ValidationError):
        return shape.model_validate(given)
    return None


def _within(data: Any, loc: tuple[str | int, ...]) -> Path:
    """The part of pydantic's location that is a path in the data: it adds names of validators and variants."""
    path: list[str | int] = []
    for part in loc:
        there = part in data if isinstance(data, dict) else isinstance(data, list) and isinstance(part, int)
        if not there:
            missing_key = isinstance(data, dict) and part == loc[-1]
            return (*path, part) if missing_key else tuple(path)
        data = data[part]
        path.append(part)
    return tuple(path)


def _sentence(error: dict[str, Any], shape: type[BaseModel], place: Path) -> str:
    given = error.get("input")
    shown = "nothing" if given is None else f"`{str(given)[:60]}`"
    match error["type"]:
        case "extra_forbidden":
            return _unknown(str(place[-1]), _keys(shape, place[:-1]))
        case "missing":
            return "is missing"
        case "value_error":
            return str(error["ctx"]["error"])
        case "literal_error":
            return f"expected {error['ctx']['expected'].replace(chr(39), '')}, not {shown}"
        case "bool_type":
            return f"expected true or false, not {shown}"
        case "int_type":
            return f"expected a whole number, not {shown}"
        case "string_type":
            return f"expected text, not {shown}"
        case "list_type":
            return f"expected a list such as [a, b], not {shown}"
        case "model_type" | "dict_type":
            return "expected keys with values under it"
        case "greater_than_equal" | "less_than_equal":
            (edge, number) = next(iter(error["ctx"].items()))
            return f"expected {'at least' if edge == 'ge' else 'at most'} {number}, not {shown}"
        case "too_short":
            return f"expected at least {error['ctx']['min_length']} of them"
        case _:
            return str(error["msg"])


def _keys(shape: type[BaseModel], place: Path) -> tuple[str, ...]:
    for part in place:
        annotation = str(shape.model_fields[str(part)].annotation)
        inner = next((one for one in _nested(shape) if one.__name__ in annotation), None)
        if inner is None:
            break
        shape = inner
    own = tuple(shape.model_fields)
    return (*own, "gates") if shape is ServiceShape else own


def _nested(shape: type[BaseModel]) -> list[type[BaseModel]]:
    found: list[type[BaseModel]] = []
    for field in shape.model_fields.values():
        for one in getattr(field.annotation, "__args__", ()):
            if isinstance(one, type) and issubclass(one, BaseModel):
                found.append(one)
    return found


def _plans(document: Document) -> dict[str, Plan | None]:
    """Plans by name; None for one that is wrong, so that who names it is not blamed as well."""
    plans: dict[str, Plan | None] = {DEFAULT_PLAN.name: DEFAULT_PLAN}
    for name, data in _named(document, ("plans",), "plan", PLAN_NAME).items():
        path: Path = ("plans", name)
        plans[name] = None
        if data is None:
            document.refuse(path, "has no steps")
            continue
        part = _part(document, path, PlanShape, data)
        if part is None:
            continue
        try:
            plans[name] = parse_steps(part.steps, name)
        except UserError as error:
            document.refuse((*path, "steps"), f"{error.message} {error.hint}".strip())
    return plans


def _gates(document: Document, path: Path, section: Mapping[str, Any], inherited: Gates) -> Gates:
    gates: dict[str, GateShape | None] = dict(inherited)
    wrong: set[str] = set()
    for name, data in section.items():
        if data is False or data == "off":
            gates[name] = None
            continue
        part = _part(document, (*path, name), GateShape, data)
        if part is None:
            wrong.add(name)
        else:
            gates[name] = resolved(inherited.get(name), part)
    for name in section:
        if name in wrong:
            gates.pop(name, None)
    return gates


def _services(
    document: Document, defaults: DefaultsShape, plans: Mapping[str, Plan | None], gates: Gates
) -> dict[str, ServiceEntry]:
    services: dict[str, ServiceEntry] = {}
    for name, data in _named(document, ("services",), "service", SERVICE_NAME).items():
        path: Path = ("services", name)
        section = _section(document, path, data)
        if data is not None and not isinstance(data, dict):
            continue
        own = section.get("gates")
        without_gates = {key: value for key, value in section.items() if key != "gates"}
        part = _part(document, path, ServiceShape, without_gates)
        merged = _gates(document, (*path, "gates"), _section(document, (*path, "gates"), own), gates)
        services[name] = _entry(document, path, name, defaults, part or ServiceShape(), plans, merged)
    return services


def _entry(
    document: Document,
    path: Path,
    name: str,
    defaults: DefaultsShape,
    own: ServiceShape,
    plans: Mapping[str, Plan | None],
    gates: Gates,
) -> ServiceEntry:
    steered = [
        (kind, getattr(own.route, kind)) for kind in ("http", "tcp", "tls") if own.route and getattr(own.route, kind)
    ]
    if len(steered) > 1:
        document.refuse((*path, "route"), "names more than one of http, tcp and tls")
    protocol, route = steered[0] if steered else ("", "")
    roles = _roles(defaults, own)
    entry = ServiceEntry(
        name=name,
        namespace=own.namespace or defaults.namespace or "",
        mesh=own.mesh or "",
        route_name=(own.route.name if own.route else None) or "",
        route=route,
        protocol=protocol,
        subsets=tuple(own.subsets or ()),
        plan=_plan(document, path, defaults, own, plans),
        gates=specs(document, path, gates),
        rules=_rules(defaults, own, roles),
        roles=roles,
    )
    if protocol in ("tcp", "tls") and not any(gate and gate.query for gate in gates.values()):
        document.refuse((*path, "route"), f"a {protocol} route has no requests to count: give it a gate with a query")
    return entry


def _plan(
    document: Document, path: Path, defaults: CommonShape, own: CommonShape, plans: Mapping[str, Plan | None]
) -> Plan:
    name = own.plan or defaults.plan or DEFAULT_PLAN.name
    if name not in plans and (own.plan or path == ("defaults",)):
        near = nearest(name, plans)
        meant = f"; was `{near[0]}` meant?" if near else f"; there are {', '.join(sorted(plans))}"
        document.refuse((*path, "plan"), f"there is no plan `{name}`{meant}")
    return plans.get(name) or DEFAULT_PLAN


def _rules(defaults: CommonShape, own: CommonShape, roles: Roles) -> Rules:
    def value(key: str) -> Any:
        mine = getattr(own, key)
        return mine if mine is not None else getattr(defaults, key)

    given = {
        "check_every_s": value("check_every"),
        "no_data_after_s": value("no_data_after"),
        "on_no_data": _silence(value("on_no_data")),
        "on_machine": _silence(value("on_machine")),
        "arrival_s": value("arrival"),
        "channel": value("channel"),
        "alpha": value("alpha"),
        "mention": value("mention") or next(iter(roles.approvers), None),
    }
    approval = _approval(defaults.approval, own.approval)
    return replace(Rules(approval=approval), **{key: one for key, one in given.items() if one is not None})


def _approval(defaults: ApprovalShape | None, own: ApprovalShape | None) -> ApprovalPolicy:
    given: dict[str, Any] = {}
    for part in (defaults, own):
        if part is not None:
            one = part.model_dump(exclude_none=True)
            if "expires" in one:
                one["expires_s"] = one.pop("expires")
            if "on_expiry" in one:
                one["on_expiry"] = OnSilence(one["on_expiry"])
            given |= one
    return replace(ApprovalPolicy(), **given)


def _silence(value: str | None) -> OnSilence | None:
    return OnSilence(value) if value is not None else None


def _roles(defaults: CommonShape, own: CommonShape) -> Roles:
    def people(key: str) -> tuple[str, ...]:
        mine = getattr(own, key)
        return tuple(mine if mine is not None else getattr(defaults, key) or ())

    return Roles(people("starters"), people("approvers"), people("operators"), people("rollback"))


def _nodes(document: Document) -> NodeLimits:
    part = _part(document, ("nodes",), NodesShape, document.data.get("nodes"))
    limits = NodeLimits()
    if part is None:
        return limits
    return NodeLimits(
        _threshold(document, "steal", limits.steal, part.steal),
        _threshold(document, "iowait", limits.iowait, part.iowait),
        part.condition_for or limits.condition_s,
        part.clear_after or limits.calm_s,
    )


def _threshold(document: Document, name: str, usual: Threshold, given: LevelsShape | None) -> Threshold:
    if given is None:
        return usual
    threshold = Threshold(given.warn or usual.warn, given.critical or usual.critical)
    if threshold.warn > threshold.critical:
        document.refuse(("nodes", name), f"warns at {threshold.warn:.0%}, above critical at {threshold.critical:.0%}")
    return threshold


def _namespaces(document: Document) -> tuple[str, ...]:
    given = document.data.get("namespaces")
    if given is None:
        return ()
    if not isinstance(given, list):
        document.refuse(("namespaces",), "expected a list such as [shop, web]")
        return ()
    for index, name in enumerate(given):
        if not isinstance(name, str) or not NAMESPACE.fullmatch(name):
            document.refuse(("namespaces", index), f"expected the name of a namespace, not `{name}`")
    return tuple(str(name) for name in given)
