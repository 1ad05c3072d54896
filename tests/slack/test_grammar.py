"""What people type is read as they meant it, or they are told what was expected, where, with an example."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import UserError
from bot.handlers import speech
from bot.handlers.commands import COMMANDS
from bot.handlers.commands.freeze import Args as Freezing
from bot.handlers.commands.promote import Args as Promoting
from bot.handlers.commands.start import Args as Starting
from bot.handlers.grammar import Misunderstood, decode
from bot.handlers.moment import moment
from bot.rollout.gate import parse_gate
from bot.usecases.backtest import BacktestAsk
from bot.usecases.start import StartAsk

NOW = 1_800_000_000.0  # 2027-01-15 08:00 UTC
STEPS = "5%:10m,50%:30m:approve,100%:10m"


@pytest.mark.parametrize(
    ("typed", "args"),
    [
        ("start", None),
        ("start payments", Starting(StartAsk("payments"))),
        ("START payments v2", Starting(StartAsk("payments", "v2"))),
        ("start payments to v2 plan standard", Starting(StartAsk("payments", "v2", plan="standard"))),
        (f"start payments v2 steps {STEPS}", Starting(StartAsk("payments", "v2", steps=STEPS))),
        (f"start payments v2 steps {STEPS.replace(',', ', ')}", Starting(StartAsk("payments", "v2", steps=STEPS))),
        (
            f"start payments steps {STEPS.replace(',', ' , ')} at 9:05",
            Starting(StartAsk("payments", steps=STEPS), "9:05"),
        ),
        (
            "start payments error-rate&lt;1% p99 &lt; 250ms",
            Starting(StartAsk("payments", gates=(parse_gate("error-rate<1%"), parse_gate("p99<250ms")))),
        ),
        ("start payments —dry-run –adopt", Starting(StartAsk("payments", dry_run=True, adopt=True))),
        ("start <http://payments.shop|payments.shop> in shop", Starting(StartAsk("payments.shop", namespace="shop"))),
        ("start “payments” v2 at 2026-11-20T14:30", Starting(StartAsk("payments", "v2"), "2026-11-20T14:30")),
        ("start `payments`", Starting(StartAsk("payments"))),
        ("promote payments-7f3a", Promoting("payments-7f3a")),
        ("promote payments-7f3a --full", Promoting("payments-7f3a", "full")),
        ("promote x --override it's on fire &amp; we know", Promoting("x", "override", "it's on fire & we know")),
        ("hold payments-7f3a", ("payments-7f3a", "")),
        ("hold payments-7f3a “waiting for Ada”", ("payments-7f3a", "waiting for Ada")),
        ("hold payments-7f3a 'tis broken", ("payments-7f3a", "'tis broken")),
        ("reject payments-7f3a ask <@U0ADA|ada> in <#C0DEPLOYS|deploys>", ("payments-7f3a", "ask @ada in #deploys")),
        ("rollback ALL", ("all", "")),
        ("abort payments bad &lt;!channel&gt;", ("payments", "bad <!channel>")),
        ("freeze all for 4h audit week", Freezing("all", 14400.0, "audit week")),
        ("freeze payments forever young", Freezing("payments", None, "forever young")),
        ("unfreeze", ""),
        ("gates payments in shop", BacktestAsk("payments", 0.0, "shop")),
        ("gates payments —since 24h --every 1h in shop", BacktestAsk("payments", 86400.0, "shop", every_s=3600.0)),
        ("", ""),
        ("help abort", "rollback"),
    ],
)
def test_a_line_is_read_as_it_was_meant(typed: str, args: object) -> None:
    """Keywords, quotes, dashes, links, mentions and entities come out as the person typed them."""
    assert speech.understand(typed).args == args


@pytest.mark.parametrize(
    ("typed", "said", "place"),
    [
        ("strat payments", "There is no verb `strat`. Did you mean `start`?", "strat"),
        ("wibble", "There is no verb `wibble`.", "wibble"),
        (
            "start payments v2 stps 5%:10m",
            "Expected plan, steps, a gate, at, in or a flag after the subset `v2`. Did you mean `steps`?",
            "stps",
        ),
        (
            "start payments steps 5%:10m,3%:1m",
            "Step 2 (`3%:1m`, character 8): weights have to rise, but 3% follows 5%.",
            "5%:10m,3%:1m",
        ),
        (
            "start payments p99&lt;fast",
            "`p99<fast` is not a gate: expected name, `<`, and a limit with its unit.",
            "p99<fast",
        ),
        ("start payments p99&lt;1x p99&lt;2x", "`p99` is limited twice.", "p99<2x"),
        ("start payments --dryrun", "There is no such flag: `--adopt` and `--dry-run` are known.", "--dryrun"),
        (
            "start payments at 25:00",
            "Expected a time like `14:30` (your time zone) or `2026-11-20T14:30`.",
            "25:00",
        ),
        ("start payments plan", "Expected the name of a plan here.", ""),
        ("promote", "Expected an id or service here.", ""),
        ("promote x soon", "Expected `--full`, `--override <reason>` or nothing.", "soon"),
        ("promote x --override", "Expected the reason (it is recorded and announced) here.", ""),
        ("reject payments-7f3a", "Expected the reason here.", ""),
        ("resume a b", "Nothing more was expected here.", "b"),
        ("freeze all", "Expected the reason here.", ""),
        (
            "freeze all for ever x",
            "`ever` is not a duration: expected a number with ms, s, m, h or d.",
            "ever",
        ),
        ('hold x "half', "This quote is not closed.", '"'),
        ("help strat", "There is no such verb. Did you mean `start`?", "strat"),
    ],
)
def test_a_wrong_line_is_answered_with_what_was_expected_and_where(typed: str, said: str, place: str) -> None:
    """The complaint names what was expected, points at the very word (or behind the end), and shows an example that
    can itself be read."""
    with pytest.raises(Misunderstood) as caught:
        speech.understand(typed)
    error = caught.value
    assert error.message == said
    pointed = error.line[error.start : error.start + error.width]
    assert pointed == place
    assert place or error.start > len(error.line)
    speech.understand(error.hint)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    *COMMANDS,
                    "to",
                    "at",
                    "in",
                    "steps",
                    "plan",
                    "--full",
                    "p99<",
                    "<",
                    '"',
                    "`",
                    "“",
                    "5%:10m,",
                    "for",
                    "4h",
                    "<@U1|a>",
                    "&lt;",
                ]
            ),
            st.text(max_size=8),
        ),
        max_size=12,
    )
)
def test_no_line_breaks_the_parser(pieces: list[str]) -> None:
    """Whatever is typed is either understood or answered; nothing else comes out."""
    try:
        speech.understand(" ".join(pieces))
    except UserError as error:
        speech.explained(error)


def test_too_long_a_line_is_refused() -> None:
    """A line over the limit is answered, not read."""
    with pytest.raises(UserError, match="at most 2000 characters"):
        speech.understand("hold x " + "y" * 3000)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.verb)
def test_every_example_can_be_typed(command) -> None:
    """The example in the help is understood as that very command."""
    assert speech.understand(command.example).command is command


@given(st.text())
def test_decoded_text_is_one_line(text: str) -> None:
    """No line break, double blank or margin survives."""
    assert decode(text) == " ".join(decode(text).split())


@pytest.mark.parametrize(
    ("typed", "zone", "hours"),
    [
        ("09:30", "UTC", 1.5),
        ("08:00", "UTC", 24.0),
        ("09:30", "Europe/Berlin", 0.5),
        ("03:00", "America/New_York", 24.0),
        ("2027-01-15T12:00Z", "Europe/Berlin", 4.0),
        ("2027-01-15T12:00", "Europe/Berlin", 3.0),
        ("09:30", "No/Such_Zone", 1.5),
    ],
)
def test_a_time_of_day_is_its_next_occurrence_where_the_person_is(typed: str, zone: str, hours: float) -> None:
    """`14:30` is read in the person's zone, today or tomorrow; a time with its own zone keeps it."""
    assert moment(typed, NOW, zone) == NOW + hours * 3600


def test_a_time_that_is_past_is_refused() -> None:
    """A date in the past is answered with what time it is for the person."""
    with pytest.raises(UserError, match="is past") as caught:
        moment("2027-01-15T10:00", NOW, "Europe/Helsinki")
    assert caught.value.hint == "It is 2027-01-15T10:00 for you now."


def test_a_time_too_far_away_is_refused() -> None:
    """Nothing is scheduled further ahead than 30 days."""
    with pytest.raises(UserError, match="more than 30 days"):
        moment("2027-06-01T10:00", NOW, "UTC")
