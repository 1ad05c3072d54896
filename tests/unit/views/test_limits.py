"""Whatever a rollout holds, Slack takes the message, and nobody is pinged by what somebody else wrote."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from slack_sdk.models.blocks import Block

from bot.analysis.nodes import Level, NodeHealth
from bot.errors import UserError
from bot.ports.mesh import Finding, Severity, Survey
from bot.rollout.effects import Message
from bot.rollout.model import Freeze, Rollout
from bot.sandbox.slack.blocks import problems
from bot.views import Rendered, answers, render
from bot.views.card import card
from bot.views.dry_run import dry_run
from bot.views.escape import code, code_block, escape
from tests.unit.views.strategies import actors, messages, moments, rollouts, texts

QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=100)
OURS = re.compile(
    r"<(!date\^\d+\^[^<>|]*\|[^<>]*|@[UW][A-Z0-9]+|https://x/y\|Its card|!subteam\^(?:S[A-Z0-9]+|@release-leads))>"
)


def mrkdwn(value: Any) -> list[str]:
    """Every string of a message that Slack reads as mrkdwn."""
    if isinstance(value, list):
        return [text for item in value for text in mrkdwn(item)]
    if isinstance(value, dict):
        if value.get("type") == "mrkdwn":
            return [value["text"]]
        return [text for item in value.values() for text in mrkdwn(item)]
    return []


def assert_sendable(shown: Rendered) -> None:
    blocks = json.loads(json.dumps(shown.blocks))
    assert problems(blocks) == []
    for block in Block.parse_all(blocks):
        block.validate_json()
    assert 0 < len(shown.text) <= 4000
    for text in [shown.text, *mrkdwn(blocks)]:
        assert "<" not in OURS.sub("", text), text
        assert ">" not in OURS.sub("", text), text
        assert "<!channel" not in text
        assert "<!here" not in text
        assert text.count("```") % 2 == 0, text


@QUIET
@given(rollouts())
def test_any_card_is_taken_by_slack(rollout: Rollout) -> None:
    """Blocks and text of a card keep all of Slack's limits, and its only mentions and dates are ours."""
    assert_sendable(card(rollout))


@QUIET
@given(messages, rollouts())
def test_any_message_is_taken_by_slack(message: Message, rollout: Rollout) -> None:
    """The same for every kind of message, with a rollout and without."""
    assert_sendable(render(message, rollout))
    assert_sendable(render(message, None))


@QUIET
@given(st.lists(rollouts(), max_size=3), texts, texts, st.integers(0, 100))
@example([], " ", "", 0)
def test_any_answer_is_taken_by_slack(several: list[Rollout], text: str, hint: str, start: int) -> None:
    """The same for private answers."""
    assert_sendable(answers.status(several, ((text, hint),)))
    assert_sendable(answers.history(several, text))
    assert_sendable(answers.pending(several))
    assert_sendable(answers.said(text or "x", hint))
    assert_sendable(answers.misunderstood(text or "x", text, min(start, len(text)), 3, hint))
    for rollout in several:
        assert_sendable(answers.queries(rollout))
        assert_sendable(answers.nobody_holds([rollout.id], [rollout.target]))
        if rollout.assessment:
            assert_sendable(answers.gates(rollout.target, rollout.assessment, rollout.id, (text,)))


freezes = st.builds(Freeze, texts, texts, texts, actors, moments, st.one_of(st.none(), moments))
findings = st.builds(Finding, texts, st.sampled_from(Severity), texts, texts)
listed = st.lists(st.tuples(texts, texts, st.lists(texts, max_size=3).map(tuple), texts), max_size=120)


@QUIET
@given(
    st.lists(freezes, max_size=60), st.lists(findings, max_size=20), listed, rollouts(), st.lists(texts, max_size=40)
)
def test_any_listing_is_taken_by_slack(
    standing: list[Freeze],
    found: list[Finding],
    services: list[tuple[str, str, tuple[str, ...], str]],
    rollout: Rollout,
    several: list[str],
) -> None:
    """The same for freezes, services, plans, nodes, findings, help and dry runs, however long they are."""
    for freeze in standing[:2]:
        assert_sendable(answers.frozen(freeze))
    assert_sendable(answers.freezes(standing))
    assert_sendable(answers.unfrozen(standing or [Freeze("f", "all", "x", rollout.started_by, 0.0)]))
    assert_sendable(answers.services(services))
    assert_sendable(answers.start_usage("/canary start", "start payments", services))
    assert_sendable(answers.started(rollout, found))
    assert_sendable(answers.undoing(rollout))
    assert_sendable(answers.plans(dict.fromkeys(several, rollout.plan)))
    assert_sendable(answers.nodes([(NodeHealth(name, Level.WARN, (name,)), several) for name in several]))
    assert_sendable(answers.help_all([(f"/canary help {name}", name) for name in several], 3))
    assert_sendable(answers.error(UserError(several[0] if several and several[0] else "x", "y"), "https://x/y"))
    survey = Survey(rollout.target, None, tuple(found), 0, tuple(several))
    assert_sendable(dry_run("payments", survey, rollout.plan, (), found, several, (None, 12)))


@QUIET
@given(texts, st.integers(1, 200))
def test_code_never_ends_early(text: str, limit: int) -> None:
    """Text in code font has its two backticks and no others, and keeps its limit."""
    assert code(text, limit).count("`") == 2
    assert "\n" not in code(text, limit)
    assert code_block(text).count("`") == 6


@QUIET
@given(texts, st.integers(1, 500))
def test_escaped_text_keeps_its_limit_and_its_entities(text: str, limit: int) -> None:
    """Nothing that Slack interprets is left, no entity is cut in two, and the limit holds."""
    shown = escape(text, limit)
    assert len(shown) <= limit
    assert not re.search(r"[<>]", shown)
    assert not re.search(r"&(?!amp;|lt;|gt;)", shown)
