"""A thousand runs (SIMULATION_RUNS says how many), seeds that once found a fault, and that a run can be replayed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.__main__ import many
from tests.simulation.planted import PLANTS, Plant, planted
from tests.simulation.story import run

RUNS = int(os.environ.get("SIMULATION_RUNS", "1000"))
ONCE_FAILED = {
    10: "a raise landed, its holder was killed, the route was deleted: nothing said that the canary had had traffic",
    77: "a store that lost its last second did not know where the card stood, and a letter waited for it for ever",
    175: "a holder whose clock was a minute ahead began a bake, and nobody judged a bad canary until then",
    192: "evidence of that clock let a sequential gate pass a canary with 40% errors, and it was raised",
    980: "the store forgot a rebuilt rollout once more before it was in memory: found again after five minutes",
}
"""Seeds that found a fault of the bot. What they play changes when the bot does; they stay as a sample of hard runs."""


def test_no_run_breaks_a_rule() -> None:
    """Whatever fails, stops, dies, or is cut off: nothing is lost, doubled, raised wrongly, late or kept quiet."""
    totals = many(0, RUNS, 2)
    told = [f"python -m tests.simulation --seed {seed} --trace: {texts}" for seed, texts in totals.failed.items()]
    assert told == []
    assert totals.runs == RUNS
    assert min(totals.ends["Promoted"], totals.ends["RolledBack"], totals.fates["killed"]) > RUNS / 20


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_what_once_failed_stays_well(seed: int) -> None:
    """A seed that found a fault finds none any more."""
    assert run(seed).broken == ()


def test_a_run_depends_on_its_seed_alone() -> None:
    """Another process, with other hashes, plays the very same run: a failing seed can be replayed."""
    code = "from tests.simulation.story import run; print(*(run(seed, lines=True).digest for seed in range(20)))"
    root = Path(__file__).parents[2]
    other = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.split() == [run(seed, lines=True).digest for seed in range(20)]


def test_a_long_run_that_is_told_to_end_keeps_its_figures(tmp_path: Path) -> None:
    """SIGTERM: what was begun is played to its end, and the figures are those of what was played."""
    playing = subprocess.Popen(
        [sys.executable, "-m", "tests.simulation", "--runs", "100000"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    with playing:
        assert playing.stdout is not None
        assert playing.stdout.readline().startswith("Seeds 0 to 99999")
        playing.send_signal(signal.SIGTERM)
        playing.stdout.read()
        assert playing.wait(60) == 0
    figures = json.loads((tmp_path / "build" / "simulation.json").read_text())
    assert 0 < figures["runs"] < 1000
    assert figures["failed_seeds"] == []


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS.keys())
def test_a_planted_fault_is_found(plant: Plant) -> None:
    """The checker notices, within so many seeds and under the right figure, that a guard of the bot is gone."""
    with planted(plant):
        for seed in range(plant.within):
            found = [one for one in run(seed).broken if one.figure == plant.figure and plant.said in one.text]
            if found:
                return
    pytest.fail(f"{plant.within} seeds found nothing")


def test_every_rule_has_a_planted_fault() -> None:
    """Nine rules, each with at least one fault that breaks it."""
    assert {plant.rule for plant in PLANTS.values()} == set(range(1, 10))
