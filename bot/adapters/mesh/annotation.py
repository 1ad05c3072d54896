"""Our one annotation on the route: the fence, and what is needed to go to 0 with the API server alone.

Compact JSON in characters that every JSON encoder writes alike. API servers compare strings in a `test` byte by byte in
their encoded form, and Go writes `<`, `>`, `&` and everything beyond ASCII otherwise than Python does, so a `test` on
such a text would never hold.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any

from bot.rollout.model import Destination, Phase, RouteRef, Side, Target
from bot.rollout.route import Mark

KEY = "canary-bot.dev/rollout"
_REASON_CHARS = 200
_RESTORED = (Phase.ROLLED_BACK.value, Phase.CANCELLED.value)


def written(mark: Mark, target: Target, bare: tuple[str, ...]) -> str:
    """The annotation's text. `bare` names the sides that had no weight of their own before we came.

    Promoted keeps it: an undo is to leave the route as the first start found it.
    """
    route = target.route
    fields: dict[str, Any] = {
        "rollout": mark.rollout,
        "revision": mark.revision,
        "weight": mark.weight_percent,
        "phase": mark.phase,
        "service": mark.service or target.service,
        "namespace": target.namespace,
        "host": target.host,
        "stable": target.stable.destination.text,
        "canary": target.canary.destination.text,
        "route": f"{route.protocol}/{route.route}" if route.route else route.protocol,
        "match": route.match,
        "total": target.total,
        "inserted": mark.inserted or target.canary_inserted,
        "reason": mark.reason[:_REASON_CHARS],
        "bare": [] if mark.phase in _RESTORED else list(bare),
    }
    text = json.dumps(
        {key: value for key, value in fields.items() if value != "" and value != [] and value is not False},
        separators=(",", ":"),
    )
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").replace("\x7f", "\\u007f")


def text_of(manifest: Mapping[str, Any]) -> str | None:
    """The annotation as it stands on an object, None when there is none."""
    value = (manifest.get("metadata", {}).get("annotations") or {}).get(KEY)
    return value if isinstance(value, str) else None


def mark_of(manifest: Mapping[str, Any]) -> Mark | None:
    """The mark an object bears; None when it bears none or one that cannot be read."""
    fields = _fields(manifest)
    if fields is None:
        return None
    try:
        return Mark(
            rollout=sys.intern(str(fields["rollout"])),
            revision=int(fields["revision"]),
            weight_percent=int(fields["weight"]),
            phase=sys.intern(str(fields["phase"])),
            service=sys.intern(str(fields.get("service", ""))),
            stable=str(fields.get("stable", "")),
            canary=str(fields.get("canary", "")),
            route=sys.intern(str(fields.get("route", ""))),
            inserted=bool(fields.get("inserted", False)),
            reason=str(fields.get("reason", "")),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def bare_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    """The sides that had no weight of their own before the rollout that marked the object."""
    bare = (_fields(manifest) or {}).get("bare", ())
    return tuple(str(side) for side in bare) if isinstance(bare, list) else ()


def target_of(manifest: Mapping[str, Any], mesh: str) -> Target | None:
    """What is steered, rebuilt from the annotation alone; None when it does not say enough."""
    fields = _fields(manifest)
    mark = mark_of(manifest)
    if fields is None or mark is None:
        return None
    metadata = manifest["metadata"]
    protocol, _, route = mark.route.partition("/")
    try:
        stable, canary = Destination.parse(mark.stable), Destination.parse(mark.canary)
        total = int(fields.get("total", 100))
    except (TypeError, ValueError, OverflowError):
        return None
    if not stable.host or not canary.host:
        return None
    return Target(
        service=mark.service or stable.host.partition(".")[0],
        namespace=str(fields.get("namespace", metadata["namespace"])),
        host=str(fields.get("host", stable.host)),
        route=RouteRef(
            mesh=mesh,
            namespace=metadata["namespace"],
            name=metadata["name"],
            protocol=protocol or "http",
            route=route,
            match=str(fields.get("match", "")),
            uid=str(metadata.get("uid", "")),
        ),
        stable=Side(label=label_of(stable), destination=stable),
        canary=Side(label=label_of(canary), destination=canary),
        canary_inserted=mark.inserted,
        total=total,
    )


def label_of(destination: Destination) -> str:
    """The short name people use for a destination: its subset, else the first word of its host."""
    return destination.subset or destination.host.partition(".")[0]


def is_final(phase: str) -> bool:
    """True when a mark's phase is one that nothing changes any more."""
    try:
        return Phase(phase).final
    except ValueError:
        return False


def _fields(manifest: Mapping[str, Any]) -> Mapping[str, Any] | None:
    text = text_of(manifest)
    if text is None:
        return None
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None
