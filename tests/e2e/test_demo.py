"""One run of `canary-bot demo --exit --json`, as a newcomer has it: what it reports and what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from bot.sandbox.demo.report import share_tolerance
from bot.sandbox.demo.telling import unsaid
from tests.fixtures.requirements import needs_module

pytestmark = pytest.mark.alone
Json = dict[str, Any]
LIMIT_S = 150.0
FAIL_AFTER, CHECK_EVERY_S, SCRAPE_S = 2, 1.0, 1.0


@dataclass(frozen=True, slots=True)
class Demo:
    """A finished run: exit status, what was printed, the report, and what its temporary folder held afterwards."""

    status: int
    printed: str
    report: Json
    left_over: list[str]
    pids: list[int]

    def story(self, service: str) -> Json:
        found: Json = next(story for story in self.report["stories"] if story["service"] == service)
        return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    """The run that feeds every test here; its temporary files go into a folder of its own."""
    for module in ("envoy", "jsonpatch"):
        needs_module(module)
    folder = tmp_path_factory.mktemp("demo")
    temporary = folder / "tmp"
    temporary.mkdir()
    report = folder / "report.json"
    argv = [sys.executable, "-m", "bot.cli", "demo", "--exit", "--json", str(report)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    ended = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S, env=environment, check=False
    )
    assert report.exists(), ended.stdout[-4000:] + ended.stderr[-4000:]
    return Demo(
        ended.returncode,
        ended.stdout,
        json.loads(report.read_text()),
        sorted(str(path.relative_to(temporary)) for path in temporary.rglob("*")),
        _born_of(temporary),
    )


def _born_of(temporary: Path) -> list[int]:
    """Processes that are still there with this run's temporary folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:
            continue
        if f"TMPDIR={temporary}".encode() in environment:
            found.append(int(process.name))
    return found


def seconds(moment: str) -> float:
    """An ISO 8601 moment with its offset, as epoch seconds."""
    parsed = datetime.fromisoformat(moment)
    assert parsed.tzinfo is not None
    return parsed.timestamp()


def test_both_stories_end_as_they_should(demo: Demo) -> None:
    """The good release is promoted, the bad one is rolled back with its reason, and the exit status says so."""
    assert demo.status == 0, demo.printed
    assert [(story["service"], story["outcome"]) for story in demo.report["stories"]] == [
        ("payments", "promoted"),
        ("checkout", "rolled_back"),
    ]
    assert re.match(r"error-rate failed: .*requests failed \(limit 1%\)", demo.story("checkout")["reason"])


def test_every_step_shows_its_weight_in_envoys_traffic(demo: Demo) -> None:
    """Each step was confirmed by the API server in order, and Envoy's share is the weight within sampling error."""
    steps = demo.story("payments")["steps"]
    assert [step["weight"] for step in steps] == [10, 50, 100]
    confirmed = [seconds(step["confirmed_at"]) for step in steps]
    assert confirmed == sorted(confirmed)
    for step in steps + demo.story("checkout")["steps"]:
        assert step["requests"] > 100, step
        assert abs(step["observed_share"] - step["weight"]) <= share_tolerance(step["weight"], step["requests"]), step


def test_the_approval_says_who_and_when(demo: Demo) -> None:
    """Grace approved between the first and the second step; nobody was asked in the bad story."""
    good, bad = demo.story("payments"), demo.story("checkout")
    assert good["approval"]["by"] == "U0GRACE"
    first, second, _ = (seconds(step["confirmed_at"]) for step in good["steps"])
    assert first < seconds(good["approval"]["at"]) <= second
    assert bad["approval"] is None


def test_the_way_back_keeps_its_time(demo: Demo) -> None:
    """Visible to weight 0 within fail_after looks and a second more; verdict to weight 0 within 150 ms."""
    times = demo.story("checkout")["timings"]
    visible, verdict, zero = (seconds(times[name]) for name in ("visible_at", "verdict_at", "zero_at"))
    assert visible <= verdict <= zero + 0.001
    assert zero - visible < FAIL_AFTER * max(CHECK_EVERY_S, SCRAPE_S) + 1.0, times
    assert zero - verdict < 0.150, times
    assert demo.story("checkout")["steps"][0]["weight"] == 25
    assert isinstance(demo.story("checkout")["errors_after_verdict"], int)


def test_the_good_story_has_no_way_back(demo: Demo) -> None:
    """Times that did not happen are null, not invented."""
    assert demo.story("payments")["timings"] == {"visible_at": None, "verdict_at": None, "zero_at": None}
    assert demo.story("payments")["errors_after_verdict"] is None


def test_every_message_is_in_the_report(demo: Demo) -> None:
    """One card for each story, edited in place; the steps in its thread; the question and the alert in the channel."""
    for service, wanted in (("payments", "Promoted"), ("checkout", "Rolled back")):
        messages = demo.story(service)["messages"]
        assert {message["channel"] for message in messages} == {f"#{service}"}
        assert all(isinstance(message["edits"], int) and message["text"] for message in messages)
        card, *others = [message for message in messages if not message["thread"]]
        assert wanted in card["text"]
        assert card["edits"] >= 2
        assert len(others) == 1
        weights = [step["weight"] for step in demo.story(service)["steps"]]
        thread = "\n".join(message["text"] for message in messages if message["thread"])
        assert all(f"is at {weight}%" in thread for weight in weights), thread


def test_what_is_printed_tells_the_same_story(demo: Demo) -> None:
    """The question stands before the click that answers it, and both outcomes are said with their figures."""
    printed = demo.printed
    assert printed.index("Approval needed") < printed.index("Grace clicks") < printed.index("is at 50%")
    assert re.search(r"payments.*promoted", printed)
    assert re.search(r"checkout.*rolled.back", printed)
    assert re.search(r"verdict to weight 0 +\d+ ms", printed)
    assert "\x1b[" not in printed


def test_nothing_is_left_behind(demo: Demo) -> None:
    """No process of the run is still there, and its temporary folder is empty."""
    assert demo.pids == []
    assert demo.left_over == []


def test_a_reason_is_printed_once() -> None:
    """An announcement that ends with words already printed is cut before them; one said in full is left out."""
    said: set[str] = set()
    reason = "error-rate failed: 5% of v2's 80 requests failed (limit 1%); v1: 0% of 192 requests."
    assert unsaid(f"Rolling back: v2 goes to 0 now. {reason}", said) == f"Rolling back: v2 goes to 0 now. {reason}"
    assert unsaid(f"Rolled back: checkout is on v1 again. {reason}", said) == "Rolled back: checkout is on v1 again."
    assert unsaid(f"Rolled back: v2 has no traffic: {reason}", said) == "Rolled back: v2 has no traffic"
    assert unsaid(f"Rolled back: v2 has no traffic: {reason}", said) == ""
