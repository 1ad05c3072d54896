"""Every number that the bot counts has its instrument, and every instrument is used."""

import ast
from collections.abc import Mapping
from pathlib import Path

from bot.adapters.instruments import COUNTERS, GAUGES, HISTOGRAMS

ROOT = Path(__file__).parents[2]
KNOWN: dict[str, Mapping[str, object]] = {"count": COUNTERS, "gauge": GAUGES, "observe": HISTOGRAMS}


def calls() -> set[tuple[str, str, tuple[str, ...]]]:
    """(method, name, labels) of every call on a telemetry with a literal name."""
    found = set()
    for file in sorted((ROOT / "bot").rglob("*.py")):
        if "sandbox" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(
                    func=ast.Attribute(
                        value=ast.Name(id="telemetry") | ast.Attribute(attr="telemetry" | "_telemetry"), attr=method
                    ),
                    args=[ast.Constant(value=str(name)), *_],
                    keywords=keywords,
                ) if method in KNOWN:
                    found.add((method, name, tuple(sorted(one.arg or "" for one in keywords))))
    return found


def test_every_name_that_is_counted_is_an_instrument_with_these_labels() -> None:
    """A name or label without an instrument would raise KeyError or ValueError in the middle of the work."""
    labels = {name: tuple(sorted(of)) for name, (_, of) in COUNTERS.items()}
    wrong = {
        call for call in calls() if call[1] not in KNOWN[call[0]] or (call[0] == "count" and call[2] != labels[call[1]])
    }
    assert wrong == set()


def test_every_instrument_is_used() -> None:
    """A metric that nothing sets would tell people 0 for ever."""
    assert {name for table in KNOWN.values() for name in table} == {name for _, name, _ in calls()}
