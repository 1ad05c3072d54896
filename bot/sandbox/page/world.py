"""Where the parts of the sandbox are, as `world.json` says."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class World:
    """Addresses of the parts; None where there is no such part."""

    slack: str
    kube: str | None = None
    kube_token: str | None = None
    mesh: str | None = None
    prometheus: str | None = None
    prometheus_token: str | None = None
    bot: str | None = None
    control: str | None = None
    namespace: str = "shop"


def read_world(path: Path) -> World:
    """Read `world.json`: `{"slack": url, "kube": url, "kube_token": t, "mesh": url, "prometheus": url,
    "prometheus_token": t, "bot": {"url": ...}, "control": url}`; only `slack` is required, other keys are ignored.
    """
    given: dict[str, Any] = json.loads(path.read_text())
    bot = given.get("bot") or {}
    return World(
        slack=given["slack"].rstrip("/"),
        kube=_address(given.get("kube")),
        kube_token=given.get("kube_token"),
        mesh=_address(given.get("mesh")),
        prometheus=_address(given.get("prometheus")),
        prometheus_token=given.get("prometheus_token"),
        bot=_address(bot.get("url")),
        control=_address(given.get("control")),
        namespace=given.get("namespace", "shop"),
    )


def _address(url: str | None) -> str | None:
    return url.rstrip("/") if url else None
