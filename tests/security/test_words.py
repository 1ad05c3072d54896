"""Words of people, catalogs, clusters and metrics, on their way into queries, messages, records and log lines."""

from __future__ import annotations

import io
import json
import logging
import sys
from dataclasses import replace

import pytest
import structlog
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bot.adapters import log
from bot.adapters.instruments import Instruments
from bot.adapters.mesh.annotation import KEY, bare_of, mark_of, target_of
from bot.adapters.telemetry import ProcessTelemetry
from bot.analysis.assessment import questions
from bot.analysis.promql import fill, template_errors
from bot.rollout.gate import parse_gate
from bot.rollout.model import Bake, Rollout
from bot.rollout.record import dump, load_rollout
from bot.views import render
from bot.views.escape import mention, person
from tests.fixtures.rollouts import NOW, rollout
from tests.unit.views.strategies import HOSTILE, messages, rollouts
from tests.unit.views.test_limits import assert_sendable

QUIET = settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=80)
BREAKING = (
    '"',
    "\\",
    "'",
    "`",
    "\n",
    "\r",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "#",
    ",",
    "|",
    "=~",
    " or ",
    "{{stable}}",
    "\x00",
)
words = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=30),
    st.lists(st.sampled_from((*BREAKING, "a", "\ud800", "é")), max_size=10).map("".join),
)


def skeleton(query: str) -> str:
    """A query without its strings and comments, read as Prometheus' lexer does: what is left is what it does.

    Source: promql/parser/lex.go of Prometheus (lexString, lexRawString, lexLineComment).
    """
    rest, position = "", 0
    while position < len(query):
        mark = query[position]
        if mark == "#":
            end = query.find("\n", position)
            position = len(query) if end < 0 else end
        elif mark in "\"'`":
            position += 1
            while query[position] != mark:
                assert mark == "`" or query[position] != "\n", "a line end in a string is no PromQL"
                position += 2 if query[position] == "\\" and mark != "`" else 1
            rest, position = rest + "''", position + 1
        else:
            rest, position = rest + mark, position + 1
    return rest


TEMPLATES = (
    'sum(rate(x{a="{{canary}}",b=~"{{stable}}|{{canary}}.*"}[{{window}}]))',
    "x{a='{{service}}'} or y{b=`{{namespace}}`,c!~'{{canary}}'}",
    '# what\'s "this\nx{a="{{canary}}"}',
    'x{a="{{canary}}"} # the "end\n/ y{b="{{canary}}"}',
    'x{a="it\'s # no comment {{canary}}"}',
    'x{a="\\"{{canary}}\\""}',
)


@pytest.mark.parametrize("template", TEMPLATES)
@QUIET
@given(words, words)
@example('"} or vector(1) #', "`} or vector(1)")
def test_a_name_cannot_change_what_a_custom_query_does(template: str, one: str, other: str) -> None:
    """Whatever the names of a cluster are, outside of strings the query is what the catalog says."""
    names = {"service": other, "namespace": one, "canary": one, "stable": other, "window": "60s"}
    plain = {**dict.fromkeys(names, "a"), "window": "60s"}
    assert template_errors(template) == ()
    assert skeleton(fill(template, names)) == skeleton(fill(template, plain))


@pytest.mark.parametrize(
    "template",
    [
        '# say "\nx{{{canary}}}',
        "# it's\nx > {{stable}} # isn't",
        'x{a="b"} > {{canary}}',
        'x{a="\\\\"} > {{canary}} or y{b="c"}',
    ],
)
def test_a_placeholder_outside_of_strings_is_refused_in_spite_of_quotes_in_comments(template: str) -> None:
    """A quote in a comment opens no string."""
    assert any("must stand inside a quoted label value" in error for error in template_errors(template))


def named(made: Rollout, one: str, other: str) -> Rollout:
    """The rollout with these words wherever the cluster or the metrics supply a name."""
    target = made.target
    stable = replace(target.stable, label=one, workloads=(one,), version=one, selector=(("app", one), (other, other)))
    canary = replace(target.canary, label=other, workloads=(other, one), version=other, selector=((one, other),))
    gates = (parse_gate("error-rate<1%"), parse_gate("p99<250ms"))
    return made.with_(
        target=replace(target, service=one, namespace=other, host=f"{one}.{other}", stable=stable, canary=canary),
        gates=gates,
        bake=Bake(confirmed_at=NOW - 600, arrived_at=NOW - 600),
    )


@QUIET
@given(words, words)
def test_a_name_cannot_change_what_our_own_queries_do(one: str, other: str) -> None:
    """The same for the queries that the bot writes itself: as many matchers, the same functions, the same windows."""
    hostile = [skeleton(query.promql) for query in questions(named(rollout(), f"1{one}", f"2{other}"), NOW)]
    plain = [skeleton(query.promql) for query in questions(named(rollout(), "1a", "2b"), NOW)]
    assert sorted(hostile) == sorted(plain)


@settings(QUIET, max_examples=40)
@given(words, words, words, messages, rollouts())
def test_words_ping_nobody_wherever_they_come_from(one: str, other: str, reason: str, message, any_rollout) -> None:
    """Names of clusters, reasons of people and texts of metrics in any message: no mention and no link but ours."""
    hostile = named(any_rollout, one, other).with_(reason=reason)
    assert_sendable(render(replace(message, text=reason, detail=other), hostile))


@QUIET
@given(words)
def test_a_mention_is_made_of_ids_and_handles_only(word: str) -> None:
    """`<!channel>` is no group, and a name is no id."""
    for shown in (mention(word), person(word, word)):
        assert "<!channel" not in shown
        assert "<!here" not in shown
        assert shown.count("<") <= 1


@QUIET
@given(words, words)
@example("\ud800", "\udfff")
def test_a_record_can_be_stored_whatever_it_holds(one: str, other: str) -> None:
    """Halves of characters do not stop a save; everything else is read back as it was."""
    made = named(rollout(), one, other).with_(reason=one)
    text = dump(made)
    text.encode()
    read = load_rollout(text)
    assert read == made or "\ud800" in one + other or any(0xD800 <= ord(letter) < 0xE000 for letter in one + other)
    assert read.reason == one.encode("utf-8", "replace").decode()


def lines(word: str, *, terminal: bool) -> list[str]:
    """What is logged of a word: as a field, in a list, as an error, and by the standard library."""
    written = io.StringIO()
    written.isatty = lambda: terminal  # type: ignore[method-assign]
    former, handlers = sys.stderr, logging.getLogger().handlers[:]
    sys.stderr = written
    try:
        log.configure("info")
        ProcessTelemetry(Instruments()).line("wake", word=word, several=[word], about={word: word})
        logging.getLogger("x").error("page: %s", word)
    finally:
        sys.stderr = former
        logging.getLogger().handlers[:] = handlers
        structlog.reset_defaults()
    text = written.getvalue()
    assert text.endswith("\n")
    return text[:-1].split("\n")


@QUIET
@given(words)
def test_a_word_is_one_line_of_the_log_and_cannot_pass_for_another(word: str) -> None:
    """Outside of a terminal each line is one JSON object with the level and event that we gave it."""
    first, second = map(json.loads, lines(word, terminal=False))
    assert (first["level"], first["event"]) == ("info", "wake")
    assert (second["level"], second["event"].startswith("page: ")) == ("error", True)


@QUIET
@given(words)
@example("x\n2027-01-01 [error    ] forged")
@example("\x1b]0;title\x07\x1b[2J")
def test_a_word_does_not_steer_a_terminal(word: str) -> None:
    """In a terminal it is shown on its line, without escape sequences of its own."""
    shown = lines(word, terminal=True)
    assert len(shown) == 2
    assert "\x07" not in "".join(shown)
    assert "\x1b[2J" not in "".join(shown)


ANNOTATIONS = (
    "", "[]", "1", "null", "[" * 100_000, '{"a":' * 100_000, "{}", "\ud800",
    '{"rollout":"x","revision":1e999,"weight":5,"phase":"Progressing"}',
    '{"rollout":"x","revision":null,"weight":5,"phase":"Progressing"}',
    '{"rollout":"x","revision":1,"weight":5,"phase":"Progressing","stable":"a/v1","canary":"a/v2","total":1e999}',
    '{"rollout":"x","revision":1,"weight":5,"phase":"Progressing","stable":"a/v1","canary":"a/v2","total":null}',
    '{"rollout":"x","revision":1,"weight":5,"phase":"Progressing","stable":[],"canary":{},"bare":{}}',
)  # fmt: skip


@pytest.mark.parametrize("text", ANNOTATIONS, ids=range(len(ANNOTATIONS)))
def test_an_annotation_of_somebody_else_breaks_nothing(text: str) -> None:
    """Whoever may write one object cannot stop a roll back of all others: what cannot be read is no mark."""
    manifest = {"metadata": {"namespace": "n", "name": "x", "uid": "u", "annotations": {KEY: text}}}
    mark_of(manifest)
    target_of(manifest, "istio")
    assert bare_of(manifest) == ()
