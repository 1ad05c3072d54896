"""Records outlive versions: what was written is read back, and what cannot be read says so."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import Unreadable
from bot.rollout import record
from bot.rollout.effects import Audit, Message, MessageKind, Tone
from bot.rollout.events import Reply, Request
from bot.rollout.gate import (
    Assessment,
    Blame,
    Cause,
    Coverage,
    GateEvidence,
    GateReport,
    GateSpec,
    Odds,
    Relation,
    Scatter,
    Share,
    Verdict,
)
from bot.rollout.model import (
    Actor,
    Approval,
    ApprovalPolicy,
    Bake,
    Direction,
    Entry,
    Freeze,
    Hold,
    HoldReason,
    OnSilence,
    Phase,
    Rollout,
    Rules,
    Source,
    Tally,
    Told,
    Write,
)
from bot.rollout.plan import parse_steps
from bot.rollout.record import SCHEMA, dump, load, load_rollout, shape
from bot.rollout.route import Mark, RouteState
from tests.unit.rollout.world import ADA, GRACE, START, target

GOLDEN = Path(__file__).parent / "golden"
KINDS: tuple[type, ...] = (Rollout, Request, Message, Audit, Freeze, Mark)

MARK = Mark("payments-7f3a", 7, 25, "Progressing", "payments", "a/v1", "a/v2", "primary", True, "because")
FULL = Rollout(
    id="payments-7f3a",
    revision=9,
    target=target(inserted=True),
    plan=parse_steps("5%:10m, 50%:30m:approve, 100%:10m", "standard"),
    gates=(GateSpec("p99", "p99", 1.2, Relation.RELATIVE), GateSpec("drops", "custom", 0.5, query="up")),
    rules=Rules(
        5.0, 60.0, OnSilence.ROLL_BACK, OnSilence.HOLD, 30.0, ApprovalPolicy(2, False, 60.0, OnSilence.HOLD), "#d", "@x"
    ),
    phase=Phase.AWAITING_APPROVAL,
    created_at=START,
    started_by=ADA,
    scheduled_at=START,
    step=0,
    weight_percent=5,
    marked=7,
    write=Write(50, 9, Direction.RAISE, "gates pass", GRACE, START, 1, 5, attempts=2),
    bake=Bake(START, START + 3, 12.5, START + 20, START + 9, True, 30.0),
    holds=(Hold(HoldReason.CANNOT_MEASURE, START, "503", Actor(Source.BOT), 2),),
    approval=Approval(1, START, START + 60, (GRACE,), 1, 8),
    tallies=(Tally("p99", 1, 2, START),),
    assessment=Assessment(
        START, 0, 5, (GateReport("p99", Verdict.ERROR, "ü `x` <!channel>", value=0.1, newest_sample_at=START),),
        Share(4.9, 100, None), Coverage(START, 5.0), 2, None, "abc", ("node-1",),
        Cause(Blame.MACHINE, "steal", ("p99",)), stable_lost="no v1",
    ),
    fresh_after=START,
    hurry="full",
    override="night",
    undo_of="payments-0000",
    started_at=START,
    ended_at=START + 1,
    reason="because",
    history=(Entry(START, "raised", "5%", GRACE, 5),),
    touched=True,
    heard=("r1", "r2"),
    found=RouteState("uid", "12", 60, 40, (("v3", 1),), MARK, "kubectl", "another match", "no v1", "no v2"),
    pushed_by=GRACE,
    write_failures=3,
    card_at=START,
    paged_at=START,
    gone="deleted",
    intrusions=2,
    told=Told(Verdict.PASS, 0),
    evidence=(
        GateEvidence(
            "p99", "source", START, 9.0, 50.0, 2.5, 900.0, 4.0, Odds((0.1, -0.2, 0.3, 0.4), (-1.5, -2.0), 0.25),
            Odds((0.0, 0.0, 0.0, 0.0), waiting=(5.0, 2.0, 0.0, 40.0, 1.0)), Scatter(7.0, 900.0, 4.0, 0.5), 120.5, START,
        ),
    ),
)  # fmt: skip
SAMPLES = (
    FULL,
    Request("r1", "payments-7f3a", "promote", GRACE, START, "why", "full", 9, 0, Reply("#d", "U1", "12.3", "http://x")),
    Message(MessageKind.ASK, "text", "detail", Tone.WAIT, True, Reply("#d", "U1"), 1),
    Audit(START, "payments-7f3a", "raised", "U1", "5%", 5),
    Freeze("f1", "all", "audit", ADA, START, None),
    MARK,
)


@pytest.mark.parametrize("value", SAMPLES, ids=lambda one: type(one).__name__)
def test_what_is_written_is_read_back(value: object) -> None:
    """Every field survives, whatever it holds."""
    assert load(type(value), dump(value)) == value


def test_the_full_sample_leaves_no_field_at_its_default() -> None:
    """The golden record shows every field of a rollout."""
    assert json.loads(dump(FULL))["value"].keys() == Rollout.__dataclass_fields__.keys()


@pytest.mark.parametrize("value", SAMPLES, ids=lambda one: type(one).__name__)
def test_records_of_every_schema_are_read(value: object) -> None:
    """The golden file of each schema so far reads as the same value."""
    for schema in range(1, SCHEMA + 1):
        text = (GOLDEN / f"{type(value).__name__.lower()}-{schema}.json").read_text()
        assert load(type(value), text) == value


def test_the_shape_belongs_to_the_schema() -> None:
    """Whoever changes a recorded value has to say so: raise SCHEMA, add a migration where needed, and a golden file."""
    expected = json.loads((GOLDEN / f"shape-{SCHEMA}.json").read_text())
    assert {kind.__name__: shape(kind) for kind in KINDS} == expected


def test_an_older_schema_is_migrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A raw value passes every migration between its schema and the present one."""
    monkeypatch.setattr(record, "SCHEMA", 3)
    rename = {("Audit", 2): lambda raw: {**raw, "text": raw["text"] + " (old)"}}
    monkeypatch.setattr(record, "MIGRATIONS", rename)
    audit = Audit(START, "a", "raised", "U1", "5%", 5)
    old = json.dumps({"schema": 1, "kind": "Audit", "value": json.loads(dump(audit))["value"]})
    assert load(Audit, old) == replace(audit, text="5% (old)")


def _spoiled(**changes: object) -> str:
    envelope = json.loads(dump(FULL))
    envelope["value"].update(changes)
    return json.dumps(envelope)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a record"),
        ("[]", "not a record"),
        ("{}", "not a record"),
        ('{"schema":2,"kind":"Rollout","value":{}}', "schema 2 is not known"),
        ('{"schema":true,"kind":"Rollout","value":{}}', "schema True is not known"),
        ('{"schema":1,"kind":"Mark","value":{}}', "a record of 'Mark'"),
        ('{"schema":1,"kind":"Rollout","value":{}}', "missing"),
        ('{"schema":1,"kind":"Rollout","value":[]}', "expected an object"),
        (_spoiled(surprise=1), "surprise"),
        (_spoiled(revision="9"), "whole number"),
        (_spoiled(revision=True), "whole number"),
        (_spoiled(phase="Sleeping"), "Sleeping"),
        (_spoiled(holds={}), "expected a list"),
        (_spoiled(touched=1), "true or false"),
        ("[" * 100_000, "not a record"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, words: str) -> None:
    """Foreign, newer, damaged and hostile records are Unreadable, never something half read."""
    with pytest.raises(Unreadable, match=words):
        load_rollout(text)


@given(st.text(), st.floats(allow_nan=False), st.none() | st.floats(allow_nan=False), st.integers(0, 100))
def test_any_text_and_number_survives(text: str, at: float, until: float | None, weight: int) -> None:
    """Quotes, control characters, emoji and extreme numbers come back as they were."""
    freeze = Freeze("f", text, text, Actor(Source.PERSON, text, text), at, until)
    assert load(Freeze, dump(freeze)) == freeze
    assert load(Mark, dump(replace(MARK, reason=text, weight_percent=weight))).reason == text
