"""`canary-bot check`: try everything the bot needs, one line each."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bot.adapters.cluster import KubeCluster
from bot.adapters.mesh import ROUTERS
from bot.adapters.slack import SCOPES
from bot.bootstrap import Parts, connect
from bot.catalog import CatalogErrors, Reloading
from bot.errors import CanaryError
from bot.settings import Settings

NODE_RULES = (("", "nodes", ("get", "list", "watch")),)
LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was tried."""

    what: str
    ok: bool
    text: str


async def checked(settings: Settings) -> tuple[Line, ...]:
    """Try everything, one line each, side by side; nothing is changed."""
    lines = [catalog(settings.catalog)]
    try:
        parts = await connect(settings)
    except CanaryError as error:
        return (*lines, Line("kubeconfig", False, str(error)))
    try:
        tried = await asyncio.gather(
            _line("redis", lambda: _redis(parts)),
            _line("slack", lambda: _slack(parts)),
            _line("channels", lambda: _channels(parts, settings.catalog)),
            _line("prometheus", parts.metrics.ready),
            _line("kubernetes", KubeCluster(parts.kube).version),
            _line("permissions", lambda: _permissions(parts, settings.namespaces)),
        )
    finally:
        await parts.close()
    return (*lines, *tried)


async def _line(what: str, attempt: Callable[[], Awaitable[str]]) -> Line:
    try:
        async with asyncio.timeout(LIMIT_S):
            return Line(what, True, await attempt())
    except TimeoutError:
        return Line(what, False, f"no answer within {LIMIT_S:.0f} s")
    except CanaryError as error:
        return Line(what, False, str(error))


def catalog(path: Path | None) -> Line:
    """Read a catalog; all its errors with path and line when it has some."""
    if path is None:
        return Line("catalog", True, "none is set: every service runs with the defaults")
    try:
        read = Reloading(path).current
    except CatalogErrors as errors:
        return Line("catalog", False, str(errors))
    return Line("catalog", True, f"{len(read.services)} services, {len(read.plans)} plans")


async def _redis(parts: Parts) -> str:
    version = await parts.store.rollouts.ping()
    await parts.store.claim(only_look=True)
    return "; ".join((version, *await parts.store.advice()))


async def _slack(parts: Parts) -> str:
    me = await parts.chat.myself()
    missing = [scope for scope in SCOPES if scope not in me.scopes]
    if missing:
        raise Lacking(f"{me.team}: scopes missing: {', '.join(missing)}; add them and install the app again")
    return f"{me.team} as {me.user_id}, all {len(SCOPES)} scopes"


async def _channels(parts: Parts, path: Path | None) -> str:
    try:
        read = Reloading(path).current
    except CatalogErrors:
        return "not looked for: the catalog cannot be read"
    named = {entry.rules.channel for entry in (read.fallback, *read.services.values())} - {""}
    missing = sorted(named - await parts.chat.channels()) if named else []
    if missing:
        raise Lacking(f"not there, archived, or private without the bot: {', '.join(missing)}; nobody would hear of it")
    return f"all {len(named)} that the catalog names"


async def _permissions(parts: Parts, namespaces: Sequence[str]) -> str:
    rules = [rule for router in ROUTERS.values() for rule in router.rbac_rules]
    asked = [
        (group, resource, verb, namespace)
        for group, resource, verbs in rules
        for verb in verbs
        for namespace in (namespaces or ("",))
    ]
    asked += [(group, resource, verb, "") for group, resource, verbs in NODE_RULES for verb in verbs]
    answers = await KubeCluster(parts.kube).allowed(asked)
    refused = [rule for rule, allowed in zip(asked, answers, strict=True) if not allowed]
    if refused:
        raise Lacking("may not " + "; ".join(_spelled(*rule) for rule in refused))
    return f"all {len(asked)} granted"


def _spelled(group: str, resource: str, verb: str, namespace: str) -> str:
    where = f" in {namespace}" if namespace else ""
    return f"{verb} {resource}{f'.{group}' if group else ''}{where}"


class Lacking(CanaryError):
    """Something answered, but does not grant what the bot needs."""
