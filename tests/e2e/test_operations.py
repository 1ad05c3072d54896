"""What whoever installs the bot uses: `check`, `run` and its refusals, health, metrics, and HTTP instead of sockets."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bot.sandbox.process import free_port
from bot.sandbox.world import Options
from tests.e2e.conftest import opened
from tests.e2e.town import LINUS, Town

HEAVY = ("slack_bolt", "slack_sdk", "kubernetes", "prometheus_api_client", "apscheduler", "redis", "pydantic")
OURS = ("CANARY_BOT_", "SLACK_")
WRONG_CATALOG = """\
defaults: {plan: gone, chanel: "#x"}
plans:
  steep: {steps: "50%:1m, 20%:1m"}
services:
  payments:
    gates: {error-rate: {max: fast}}
"""


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    """A world of its own: its parts are broken one after the other."""
    town = opened(Options(rate=60.0, with_page=False))
    yield town
    town.close()


def canary_bot(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with nothing of ours in its environment but this."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    argv = [sys.executable, "-m", "bot.cli", *words]
    return subprocess.run(argv, env={**clean, **environment}, capture_output=True, text=True, timeout=60, check=False)


def checked(town: Town, **changes: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """`canary-bot check` in the town: exit status, and (`ok` or `FAIL`, text) by what was tried."""
    ended = canary_bot("check", **{**town.world.bot_environment(), **changes})
    found = re.findall(r"^(ok|FAIL) +(\w+) +(.*)$", ended.stdout, re.MULTILINE)
    return ended.returncode, {what: (state, text) for state, what, text in found}


def test_check_finds_everything_in_order(town: Town) -> None:
    """In a world where all is well each line says ok with what answered, and the exit status is 0."""
    status, lines = checked(town)
    assert {what: state for what, (state, _) in lines.items()} == dict.fromkeys(
        ("catalog", "redis", "slack", "channels", "prometheus", "kubernetes", "permissions"), "ok"
    ), lines
    assert status == 0
    assert "2 services" in lines["catalog"][1]


def test_check_says_what_is_missing(town: Town, tmp_path: Path) -> None:
    """Redis and Prometheus down, scopes, a channel and a permission missing: each line names its trouble, status 1."""
    slack = town.clients.slack
    granted = ["chat:write", "commands"]

    async def break_things(broken: bool) -> list[str]:
        async with town.clients.session.get(f"{slack}/_sandbox/settings") as answer:
            before: list[str] = (await answer.json())["scopes"]
        wanted = [scope for scope in before if scope not in granted] if broken else sorted({*before, *granted})
        async with town.clients.session.put(f"{slack}/_sandbox/settings", json={"scopes": wanted}) as answer:
            assert answer.status == 200
        deny = [{"resource": "virtualservices", "verb": "patch"}] if broken else None
        await town.kube_control("PUT", "faults", {"deny": deny})
        await town.clients.fault("prometheus", down=broken)
        return before

    catalog = tmp_path / "catalog.yaml"
    catalog.write_text('defaults: {channel: "#nowhere"}\nservices: {payments: {channel: "#payments"}}\n')
    town.play(break_things(True))
    try:
        status, lines = checked(
            town, CANARY_BOT_REDIS_URL=f"redis://127.0.0.1:{free_port()}/0", CANARY_BOT_CATALOG=str(catalog)
        )
    finally:
        town.play(break_things(False))
    assert status == 1
    assert {what for what, (state, _) in lines.items() if state == "FAIL"} == {
        "redis",
        "slack",
        "channels",
        "prometheus",
        "permissions",
    }, lines
    assert all(scope in lines["slack"][1] for scope in granted)
    assert "patch virtualservices.networking.istio.io in shop" in lines["permissions"][1]
    assert "#nowhere" in lines["channels"][1]
    assert "#payments" not in lines["channels"][1]
    assert "Redis" in lines["redis"][1]
    assert "Prometheus" in lines["prometheus"][1]


@pytest.mark.parametrize("command", ["run", "check"])
def test_missing_settings_are_told_all_at_once(command: str) -> None:
    """Without an environment every missing variable is named, and nothing is started."""
    ended = canary_bot(command)
    assert ended.returncode == 1
    for name in ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN", "CANARY_BOT_REDIS_URL", "CANARY_BOT_PROMETHEUS_URL"):
        assert name in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("command", ["run", "check"])
def test_a_catalog_with_errors_is_refused_with_all_of_them(command: str, town: Town, tmp_path: Path) -> None:
    """Each error has its path in the file and its line; `run` does not start with such a catalog."""
    catalog = tmp_path / "catalog.yaml"
    catalog.write_text(WRONG_CATALOG)
    words = (command, "--catalog", str(catalog)) if command == "check" else (command,)
    environment = {} if command == "check" else {**town.world.bot_environment(), "CANARY_BOT_CATALOG": str(catalog)}
    ended = canary_bot(*words, **{**environment, "CANARY_BOT_HTTP_PORT": "0"})
    told = ended.stdout + ended.stderr
    assert ended.returncode == 1, told
    for path, line in (("defaults.plan", 1), ("defaults.chanel", 1), ("plans.steep.steps", 3)):
        assert re.search(rf"{line}.*{re.escape(path)}|{re.escape(path)}.*{line}", told), told
    assert "services.payments.gates.error-rate" in told
    assert "Traceback" not in told


def test_health_readiness_and_metrics(town: Town) -> None:
    """Alive and ready with everything there, and the bot's own series to scrape."""
    assert town.play(town.bot_answers("/healthz")) == (200, "alive\n")
    assert town.play(town.bot_answers("/readyz")) == (200, "ready\n")
    status, text = town.play(town.bot_answers("/metrics"))
    assert status == 200
    assert re.search(r"^canary_bot_active_rollouts(\{.*\})? 0\.0$", text, re.MULTILINE), text[:2000]


def test_a_rollout_by_signed_requests(town: Town) -> None:
    """In HTTP mode commands and clicks reach the same listeners: started, held, resumed, rolled back."""
    town.play(_by_signed_requests(town))


async def _by_signed_requests(town: Town) -> None:
    world, session = town.world, town.clients.session
    await world.kill_bot(signal.SIGTERM)
    world.options = replace(world.options, slack_mode="http")
    settings = {"mode": "http", "bot_url": world.bot_url}
    async with session.put(f"{town.clients.slack}/_sandbox/settings", json=settings) as answer:
        assert answer.status == 200
    await world.start_bot()
    async with session.post(f"{world.bot_url}/slack/events", data="command=%2Fcanary&text=status") as answer:
        assert answer.status == 401
    run = await town.start("checkout", "v2 steps 50%:5m,100%:5m", channel="#checkout")
    await run.reaches(50)
    await run.says("is at 50%")

    async def held() -> bool:
        return "Held" in await run.click("hold")

    await run.eventually(held)
    await run.says("Holding: checkout")
    assert "Resumed" in await run.click("resume")
    await run.says("Progressing: checkout")
    assert "olling back" in await run.click("rollback", LINUS)
    await run.ended("RolledBack")
    await run.says("Rolled back: checkout")


def test_help_loads_nothing_heavy() -> None:
    """`canary-bot --help` answers without importing what only `run` needs."""
    code = (
        "import sys\n"
        "from bot.cli import app\n"
        "try:\n"
        "    app(['--help'])\n"
        "except SystemExit as ended:\n"
        "    assert ended.code == 0\n"
        f"print('LOADED', sorted(set({HEAVY!r}) & sys.modules.keys()))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "demo" in ended.stdout, ended.stderr
    assert ended.stdout.rstrip().endswith("LOADED []"), ended.stdout
