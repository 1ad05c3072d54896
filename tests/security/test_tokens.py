"""Recognisable secrets in every setting, and a world in which everything fails and repeats what it was sent."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import os
import pty
import re
import signal
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import structlog
from aiohttp import web

from bot.adapters import hiding, log
from bot.adapters.clock import SystemClock
from bot.adapters.instruments import Instruments
from bot.adapters.kubernetes import Kube
from bot.adapters.pager import WebhookPager
from bot.adapters.prometheus import Prometheus
from bot.adapters.redis.store import RedisStore
from bot.adapters.slack.chat import SlackChat
from bot.adapters.telemetry import ProcessTelemetry
from bot.analysis.samples import Query
from bot.errors import CanaryError
from bot.rollout.effects import Page
from bot.settings import Settings, SettingsErrors, load

SECRETS = {
    "SLACK_BOT_TOKEN": "xoxb-planted-7Qm2bot9Ktr4Wz8Lp",
    "SLACK_APP_TOKEN": "xapp-1-planted-3Rf6app0Ydk5Vn1Ms",
    "SLACK_SIGNING_SECRET": "planted5Hs8sign2Ju7Ce4Bq",
    "redis": "planted-9Nx3redis6Gw1Ta7Fo",
    "token": "planted-4Zc8prom5Eb2Iy9Uh",
    "password": "planted-2Lk7pass1Dv6Xq0Pj",
    "header": "planted-8Mw5head3Sa9Rg2Ti",
    "webhook": "planted-6Bo1hook8Fe4Ny3Kz",
    "kube": "planted-1Yt9kube7Hx5Qc0Wl",
}
SHORTEST = 12
"""Characters of a secret that may not stand anywhere; beginnings such as `xoxb-planted` are no secret."""


def forms(secret: str) -> Iterator[str]:
    """The secret itself, cut pieces of it, and how it looks in basic authentication."""
    core = secret.partition("planted")[2]
    yield from (core[at : at + SHORTEST] for at in range(len(core) - SHORTEST + 1))
    yield base64.b64encode(f"prom:{secret}".encode()).decode()[8:28]


def leaks(text: str) -> list[str]:
    """Names of the secrets of which a part stands in the text."""
    return [name for name, secret in SECRETS.items() if any(form in text for form in forms(secret))]


def test_a_leak_would_be_seen() -> None:
    """The search finds a whole secret, a cut one, and one in basic authentication."""
    secret = SECRETS["password"]
    assert leaks(f"x {secret} y") == ["password"]
    assert leaks(secret[: len(secret) - 5]) == ["password"]
    assert leaks(base64.b64encode(f"prom:{secret}".encode()).decode()) == ["password"]
    assert leaks("xoxb-planted- ***") == []


Echo = Callable[[str], web.Response]
ECHOES: dict[str, Echo] = {
    "500 in text": lambda sent: web.Response(status=500, text=sent),
    "403 in JSON": lambda sent: web.json_response({"ok": False, "error": sent, "message": sent}, status=403),
    "200 in text": lambda sent: web.Response(text=sent),
    "200 in JSON": lambda sent: web.json_response(
        {"ok": False, "status": "error", "error": sent, "errors": [sent], "response_metadata": {"messages": [sent]}}
    ),
    "302": lambda sent: web.Response(status=302, headers={"Location": f"/again/{sent[:300]}"}),
    "429": lambda sent: web.Response(status=429, text=sent, headers={"Retry-After": "0"}),
}


@asynccontextmanager
async def echoing(echo: Echo) -> AsyncIterator[str]:
    """A server that answers everything with what it was sent: path, headers and body."""

    async def answer(request: web.Request) -> web.Response:
        sent = f"{request.path_qs} {dict(request.headers)} {await request.text()}"
        return echo(sent.replace("\r", " ").replace("\n", " "))

    server = web.Application()
    server.router.add_route("*", "/{anything:.*}", answer)
    runner = web.AppRunner(server, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def parrot() -> AsyncIterator[int]:
    """A Redis that refuses every command by repeating it."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            said = " ".join(data.decode(errors="replace").split())
            writer.write(f"-ERR unknown command {said}\r\n".encode() * data.count(b"*"))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def kubeconfig(folder: Path, server: str) -> Path:
    """A kubeconfig with the planted token."""
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": SECRETS["kube"]}}],
            }
        )
    )
    return path


def environment(folder: Path, server: str, redis: int, *, basic: bool) -> dict[str, str]:
    """Every setting there is, with its secret."""
    more = (
        {"CANARY_BOT_PROMETHEUS_USERNAME": "prom", "CANARY_BOT_PROMETHEUS_PASSWORD": SECRETS["password"]}
        if basic
        else {"CANARY_BOT_PROMETHEUS_TOKEN": SECRETS["token"]}
    )
    return more | {
        "SLACK_BOT_TOKEN": SECRETS["SLACK_BOT_TOKEN"],
        "SLACK_APP_TOKEN": SECRETS["SLACK_APP_TOKEN"],
        "SLACK_SIGNING_SECRET": SECRETS["SLACK_SIGNING_SECRET"],
        "CANARY_BOT_SLACK_API_URL": f"{server}/api/",
        "CANARY_BOT_REDIS_URL": f"redis://bot:{SECRETS['redis']}@127.0.0.1:{redis}/0",
        "CANARY_BOT_PROMETHEUS_URL": server,
        "CANARY_BOT_PROMETHEUS_HEADERS": json.dumps({"X-Key": SECRETS["header"]}),
        "CANARY_BOT_ALERT_WEBHOOK_URL": f"{server}/hook/{SECRETS['webhook']}",
        "CANARY_BOT_KUBECONFIG": str(kubeconfig(folder, server)),
        "CANARY_BOT_HTTP_PORT": "0",
        "CANARY_BOT_LOG_LEVEL": "debug",
    }


def rendered(*, terminal: bool, secrets: tuple[str, ...], errors: list[BaseException]) -> str:
    """The log lines of these errors, with their tracebacks, as structlog and as the standard library's."""
    written = io.StringIO()
    written.isatty = lambda: terminal  # type: ignore[method-assign]
    former, handlers = sys.stderr, logging.getLogger().handlers[:]
    sys.stderr = written
    try:
        log.configure("debug", secrets)
        telemetry = ProcessTelemetry(Instruments())
        for error in errors:
            telemetry.failed("failed", error, nested={"of": [str(error)]}, raised=error)
            telemetry.line("line", error=str(error))
            logging.getLogger("some.library").error("it broke: %s", error, exc_info=error)
    finally:
        sys.stderr = former
        logging.getLogger().handlers[:] = handlers
        structlog.reset_defaults()
    return written.getvalue()


async def failures(server: str, redis: int, folder: Path) -> list[BaseException]:
    """What every adapter raises."""
    clock = SystemClock()
    chat = SlackChat(SECRETS["SLACK_BOT_TOKEN"], clock, base_url=f"{server}/api/")
    store = RedisStore(f"redis://bot:{SECRETS['redis']}@127.0.0.1:{redis}/0", "p")
    kube = await Kube.connect(str(kubeconfig(folder, server)))
    pager = WebhookPager(f"{server}/hook/{SECRETS['webhook']}", clock)
    metrics = [
        Prometheus(server, token=SECRETS["token"], headers={"X-Key": SECRETS["header"]}),
        Prometheus(server, username="prom", password=SECRETS["password"]),
        Prometheus(server.replace("://", f"://prom:{SECRETS['password']}@")),
    ]
    found: list[BaseException] = []

    async def tried(call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except CanaryError as error:
            found.append(error)

    page = Page("k", "s", "d")
    calls: list[Callable[[], Awaitable[object]]] = [
        chat.myself,
        lambda: chat.post("C1", "x", []),
        lambda: chat.api.read("users.info", user="U1"),
        lambda: chat.api.socket_address(SECRETS["SLACK_APP_TOKEN"]),
        lambda: chat.api.post_to(f"{server}/commands/{SECRETS['webhook']}", {}),
        store.rollouts.ping,
        lambda: store.rollouts.load("x"),
        lambda: store.seen.first_time("x", 1.0),
        lambda: kube.get("/version"),
        lambda: kube.all("/api/v1/nodes"),
        lambda: pager.page(page),
        *(one.ready for one in metrics),
    ]
    try:
        for call in calls:
            await tried(call)
        for one in metrics:
            (answer,) = (await one.ask([Query("up")])).values()
            if isinstance(answer, CanaryError):
                found.append(answer)
    finally:
        await asyncio.gather(chat.close(), store.close(), kube.close(), *(one.close() for one in metrics))
    return found


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
async def test_no_error_carries_a_secret(echo: Echo, tmp_path: Path) -> None:
    """Servers that answer with our own headers make errors of ours without them: what is raised may be shown."""
    async with echoing(echo) as server, parrot() as redis:
        errors = await failures(server, redis, tmp_path)
    assert len(errors) >= 10
    for error in errors:
        assert leaks(f"{error!r} {error}") == [], error


@pytest.mark.parametrize("echo", [ECHOES["500 in text"], ECHOES["200 in JSON"]], ids=["text", "body"])
@pytest.mark.parametrize("terminal", [False, True], ids=["JSON", "terminal"])
async def test_no_log_line_or_traceback_carries_a_secret(echo: Echo, terminal: bool, tmp_path: Path) -> None:
    """The same errors with their causes and local variables, as they are logged."""
    async with echoing(echo) as server, parrot() as redis:
        errors = await failures(server, redis, tmp_path)
    bare: list[BaseException] = [ValueError(f"it was {name}={secret}") for name, secret in SECRETS.items()]
    text = rendered(terminal=terminal, secrets=tuple(SECRETS.values()), errors=[*errors, *bare])
    assert text.count("Traceback") + text.count("ValueError") >= len(errors)
    assert leaks(text) == []


def test_what_was_never_told_to_be_secret_is_hidden_by_its_form() -> None:
    """Tokens of Slack's, authorization headers, passwords in addresses and tickets are cut out of any line."""
    for text in (
        "xoxe.xoxp-1-Mi0yLTEyMzQ1Njc4OTAx",
        "Authorization: Bearer abcdefgh.ijkl-mnop",
        "redis://u:p4ssw0rd@host",
        "redis://:p4ssw0rd@host",
        "wss://wss-primary.slack.com/link/?ticket=1d4bb6e6-21d1&app_id=x",
        "https://hooks.slack.com/commands/T1/2/abcdEFGH",
        "token eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlIn0.c2lnbmF0dXJl",
    ):
        assert not re.search(r"Mi0yLT|abcdefgh|p4ss|1d4bb6e6|abcdEFGH|eyJ", hiding.hide(text)), hiding.hide(text)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CANARY_BOT_REDIS_URL", f"redis://:pa#ss/{SECRETS['redis']}@host:6379/0"),
        ("CANARY_BOT_REDIS_URL", f"redis://bot:{SECRETS['redis']}@host:no/0"),
        ("CANARY_BOT_REDIS_URL", f"redis://bot:x/{SECRETS['redis']}@host"),
        ("CANARY_BOT_REDIS_URL", f"http://bot:{SECRETS['redis']}@host"),
        ("CANARY_BOT_PROMETHEUS_URL", f"http://prom:x/{SECRETS['password']}@host"),
        ("CANARY_BOT_PROMETHEUS_HEADERS", f'{{"X-Key": "{SECRETS["header"]}\n"}}'),
        ("CANARY_BOT_PROMETHEUS_HEADERS", f'{{"X-Key": {SECRETS["header"]}}}'),
        ("CANARY_BOT_ALERT_WEBHOOK_URL", SECRETS["webhook"]),
        ("SLACK_BOT_TOKEN", SECRETS["SLACK_APP_TOKEN"]),
        ("SLACK_APP_TOKEN", SECRETS["SLACK_BOT_TOKEN"]),
    ],
)
def test_a_wrong_setting_is_refused_without_its_value(
    name: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that cannot be taken apart, or a token of another kind, is named and not repeated."""
    for variable, text in environment(tmp_path, "http://127.0.0.1:1", 1, basic=False).items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsErrors) as caught:
        load()
    assert [variable for variable, _ in caught.value.errors] == [name]
    assert leaks("".join(traceback.format_exception(caught.value))) == []


@pytest.mark.parametrize("basic", [False, True], ids=["token", "password"])
def test_settings_do_not_show_their_secrets(basic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as text nor as JSON; and they know all of them, so that the log can hide them."""
    for variable, text in environment(tmp_path, "http://127.0.0.1:1", 1, basic=basic).items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("CANARY_BOT_PROMETHEUS_URL", f"http://prom:{SECRETS['password']}@127.0.0.1:1")
    settings = load()
    assert leaks(f"{settings!r} {settings} {settings.model_dump_json()}") == []
    planted = {name for name in SECRETS if name not in ("kube", "password" if not basic else "token")}
    known = " ".join(settings.secrets)
    assert planted <= set(leaks(known)), known
    assert isinstance(settings, Settings)


async def output(command: str, variables: dict[str, str], *, terminal: bool) -> str:
    """All that a command of ours writes, and its metrics and health, while everything fails; ended by SIGTERM."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot.cli", command, env={**os.environ, **variables}, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb"))
    text = b""
    try:
        async with asyncio.timeout(40):
            address = b""
            while chunk := await _some(reader):
                text += chunk
                started = [line for line in text.splitlines(keepends=True) if b"started" in line and b"\n" in line]
                if started and not address:
                    address = re.findall(rb"http://127\.0\.0\.1:\d+", started[0])[-1]
                    text += await served(address.decode())
                if address and text.count(b"\n") > 8 and process.returncode is None:
                    process.send_signal(signal.SIGTERM)
                    address = b"-"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        transport.close()
    return re.sub(r"\x1b\[[0-9;]*m", "", text.decode(errors="replace"))


async def _some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(65536)
    except OSError:
        return b""  # a terminal whose other end is closed


async def served(address: str) -> bytes:
    """Metrics, health and readiness."""
    pages = b""
    async with aiohttp.ClientSession() as session:
        for path in ("metrics", "healthz", "readyz"):
            async with session.get(f"{address}/{path}") as answer:
                pages += await answer.read() + b"\n"
    return pages


async def test_a_process_in_a_failing_world_says_no_secret(tmp_path: Path) -> None:
    """`run` with debug lines, its metrics and health, and `check`, outside of a terminal and in one: nothing that they
    write holds a secret."""
    async with echoing(ECHOES["403 in JSON"]) as body, echoing(ECHOES["500 in text"]) as text, parrot() as redis:
        folders = [tmp_path / "pipe", tmp_path / "terminal"]
        for folder in folders:
            folder.mkdir()
        piped = environment(folders[0], body, redis, basic=True)
        shown = environment(folders[1], text, redis, basic=False)
        ran, seen, checked = await asyncio.gather(
            output("run", piped, terminal=False),
            output("run", shown, terminal=True),
            output("check", piped, terminal=False),
        )
    for said in (ran, seen):
        assert "canary_bot_active_rollouts" in said, said
        assert "Slack" in said
    assert "FAIL  prometheus" in checked, checked
    assert leaks(ran + seen + checked) == []
