"""Gates of the catalog: what is always judged, what is judged by default, and what a team adds or changes."""

from collections.abc import Mapping
from dataclasses import replace

from bot.analysis.promql import template_errors
from bot.catalog.document import Document, Path
from bot.catalog.schema import GATE_NAME, GateShape
from bot.errors import UserError
from bot.rollout.gate import SEQUENTIAL, YESTERDAY, GateSpec, Relation, parse_gate

ALWAYS = (GateSpec("pods", "pods"), GateSpec("missing-responses", "missing-responses"), GateSpec("nodes", "nodes"))
USUAL_MAX = {"error-rate": "1%", "p99": "250ms"}
BY_DEFAULT = ("error-rate",)

Gates = Mapping[str, GateShape | None]
"""Gate by name; None for one that is switched off."""


def resolved(inherited: GateShape | None, own: GateShape) -> GateShape:
    """A gate with what it says itself over what it inherits."""
    if inherited is None:
        return own
    return inherited.model_copy(update=own.model_dump(exclude_none=True))


def specs(document: Document, path: Path, gates: Gates) -> tuple[GateSpec, ...]:
    """The gates of one service: `error-rate` unless it is off, the others as given, then the ones always judged."""
    always = {gate.name: gate for gate in ALWAYS}
    wanted: Gates = {**{name: GateShape() for name in (*BY_DEFAULT, *always)}, **gates}
    named: list[GateSpec] = []
    for name, shape in wanted.items():
        place = _place(document, path, name)
        if shape is None:
            if name in always:
                document.refuse(place, "is always judged and cannot be switched off")
            continue
        try:
            gate = _always(always[name], shape) if name in always else _spec(name, shape)
        except UserError as error:
            document.refuse(place, f"{error.message} {error.hint}".strip())
            continue
        if name in always:
            always[name] = gate
        else:
            named.append(gate)
    return (*named, *always.values())


def _place(document: Document, path: Path, name: str) -> Path:
    """Where a gate is written: with the service, else for all. Told once, not again for every service."""
    own = (*path, "gates", name)
    return own if own in document.lines else ("gates", name)


def _always(gate: GateSpec, shape: GateShape) -> GateSpec:
    unfit = [
        key for key in ("max", "min_requests", "query", "judge", "against", "unit") if getattr(shape, key) is not None
    ]
    if gate.kind == "nodes" and shape.model_dump(exclude_none=True):
        raise UserError("takes nothing: it holds, and no release fails by it.", "Its levels are under `nodes`.")
    if unfit:
        raise UserError(f"takes no `{unfit[0]}`: it is always judged.", "It takes fail_after and fail_total.")
    return _counted(gate, shape)


def _spec(name: str, shape: GateShape) -> GateSpec:
    if not GATE_NAME.fullmatch(name):
        raise UserError("cannot be the name of a gate.", "Names are of a-z, 0-9 and -.")
    if name in USUAL_MAX:
        if shape.query is not None or shape.unit is not None:
            raise UserError("has a query and unit of its own.", "Give a gate of another name a query.")
        return _counted(_judged(parse_gate(f"{name}<{shape.max or USUAL_MAX[name]}"), shape), shape)
    if shape.judge == SEQUENTIAL:
        raise UserError("judge: a query gives a value, not counts, so it can only be `threshold`.")
    if shape.against is not None:
        raise UserError("against: a query says itself what it compares with, by `offset`.")
    return _counted(_custom(name, shape), shape)


def _judged(spec: GateSpec, shape: GateShape) -> GateSpec:
    spec = replace(spec, judge=shape.judge or spec.judge, against=shape.against or spec.against)
    if shape.against is None:
        return spec
    if spec.relation is Relation.ABSOLUTE:
        raise UserError(f"against: {shape.max or USUAL_MAX[spec.name]} is compared with nothing.", "`max: 1.2x` is.")
    if spec.against == YESTERDAY and not spec.sequential:
        raise UserError("against: a threshold is compared with stable only.", "Leave `judge` away.")
    return spec


def _custom(name: str, shape: GateShape) -> GateSpec:
    if shape.query is None:
        raise UserError("needs a `query`: it is neither error-rate nor p99.", "See custom gates in the documentation.")
    if shape.max is None:
        raise UserError("needs a `max`.", "For example `max: 0.5` or `max: 2x`.")
    if errors := template_errors(shape.query):
        raise UserError(f"query: {'; '.join(errors)}.")
    none_at_all = shape.max.strip() == "0"
    spec = GateSpec(name, "custom", limit=0.0) if none_at_all else parse_gate(f"{name}<{shape.max}")
    if shape.unit is not None and spec.relation is Relation.RELATIVE:
        raise UserError("a relative limit has no unit.")
    return replace(spec, query=shape.query, unit=shape.unit if shape.unit is not None else spec.unit)


def _counted(spec: GateSpec, shape: GateShape) -> GateSpec:
    spec = replace(
        spec,
        min_requests=shape.min_requests or spec.min_requests,
        fail_after=shape.fail_after or spec.fail_after,
        fail_total=shape.fail_total or spec.fail_total,
    )
    if shape.fail_total is None and spec.fail_total < spec.fail_after:
        return replace(spec, fail_total=spec.fail_after)
    if spec.fail_total < spec.fail_after:
        raise UserError(f"fail_total ({spec.fail_total}) is below fail_after ({spec.fail_after}).")
    return spec
