"""Backtests on the whole sandbox: the command line with its chart and JSON, and the same asked in Slack."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.sandbox.world import Options
from tests.e2e.conftest import opened
from tests.e2e.town import ADA, PATIENCE_S, Town, spelled
from tests.fixtures.requirements import needs_module

CATALOG = """
defaults: {namespace: shop, channel: "#payments", check_every: 1s, plan: swift}
plans:
  swift: {steps: "50%:3s,100%:3s"}
gates:
  error-rate: {max: 1%, min_requests: 20}
  p99: {max: 2s, min_requests: 20}
services:
  payments: {route: {name: payments, http: primary}}
  checkout: {}
"""
PAST_S = 30.0


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    """A world that has had half a minute of traffic; checkout's v1 fails one request in five."""
    catalog: Path = tmp_path_factory.mktemp("backtest") / "catalog.yaml"
    catalog.write_text(CATALOG)
    town = opened(Options(catalog=str(catalog), rate=60.0, with_page=False))
    try:
        town.play(_with_a_past(town))
        yield town
    finally:
        town.close()


async def _with_a_past(town: Town) -> None:
    await town.clients.fault("mesh", workloads={"checkout-v1": {"fail_percent": 20}})
    await asyncio.sleep(PAST_S)


async def simulate(town: Town, *args: str) -> tuple[int, str]:
    """Run the command line beside the bot, with the bot's settings; status and everything it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bot.cli", "simulate", *args),
        env={**os.environ, **town.world.bot_environment(), "COLUMNS": "200"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
    return process.returncode or 0, told.decode()


def test_the_command_line_tells_how_often_gates_would_have_failed(town: Town, tmp_path: Path) -> None:
    """On healthy traffic no gate fails; table, chart and JSON are there."""
    needs_module("matplotlib")
    png, out = tmp_path / "gates.png", tmp_path / "gates.json"
    status, told = town.play(
        simulate(town, "--service", "payments", "--since", "25s", "--png", str(png), "--json", str(out))
    )
    assert status == 0, told
    assert re.search(r"error-rate<1% would have failed none of \d+ runs", told), told
    assert "pods: not tried" in told
    assert png.read_bytes().startswith(b"\x89PNG")
    written = json.loads(out.read_text())
    error_rate = next(gate for gate in written["gates"] if gate["gate"]["name"] == "error-rate")
    assert error_rate["failed"] == 0
    assert len(error_rate["runs"]) == written["runs"] > 5
    assert written["requests"] > 25 * 60 * 0.5


def test_a_limit_that_stable_breaks_is_found(town: Town) -> None:
    """Errors of stable itself fail most runs, and a limit above them is named."""
    status, told = town.play(simulate(town, "--service", "checkout", "--since", "20s"))
    assert status == 0, told
    found = re.search(r"error-rate<1% would have failed (\d+) of (\d+) runs; [\d.]+% 0 of", told)
    assert found, told
    assert int(found[1]) > int(found[2]) / 2


def test_what_cannot_be_tried_is_one_sentence(town: Town) -> None:
    """A service that nobody knows ends with status 1 and no traceback."""
    status, told = town.play(simulate(town, "--service", "paymets", "--since", "20s"))
    assert status == 1
    assert "`paymets` cannot be tried" in told
    assert "Traceback" not in told


def test_slack_answers_privately_after_saying_that_it_looks(town: Town) -> None:
    """`gates --since` whispers at once what it is doing, then the table."""
    told = town.play(_asked(town))
    assert "Looking at 20 s of checkout" in told
    assert re.search(r"Gates of checkout on its last 20 s: .* would have failed \d+ of \d+ runs", told), told
    assert "Highest" in told


async def _asked(town: Town) -> str:
    told = await town.say("gates checkout --since 20s")
    until = time.monotonic() + PATIENCE_S
    while "on its last" not in told and time.monotonic() < until:
        await asyncio.sleep(0.5)
        messages = await town.clients.messages("#deploys")
        told = "\n".join(spelled(message) for message in messages if message["ephemeral_to"] == ADA)
    return told
