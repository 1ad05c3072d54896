"""Lines that people, phones and machines could type after `/canary`, and many that nobody would."""

from __future__ import annotations

import json
import random
import re
import string
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bot.errors import UserError
from bot.handlers import speech
from bot.handlers.commands import COMMANDS
from bot.handlers.grammar import decode
from bot.handlers.moment import is_moment, moment
from tests.security.fuzzing import Try, main

NOW = 1_800_000_000.0
WORDS = (
    *COMMANDS, "abort", "payments", "payments-7f3a", "v2", "to", "plan", "steps", "at", "in", "for", "all",
    "--full", "--override", "--adopt", "--dry-run", "--since", "--every", "—full", "–adopt",
    "5%:10m,50%:30m:approve,100%:10m",
    "5%:10m,", "p99<250ms", "error-rate&lt;1%", "p99", "<", "<=", "1.2x", "4h", "90s", "1h30m", "1e999", "9" * 400,
    "14:30", "2026-11-20T14:30Z", "2027-02-30T99:99", "24:61", "00:00", "99999-01-01T00:00", "0001-01-01T00:00+23:59",
    '"', "'", "`", "“", "”", "‘", "«", "»", "<@U0ADA|ada>", "<!channel>", "<!subteam^S1|@x>", "<#C1|deploys>",
    "<http://x|payments>", "&lt;!here&gt;", "&amp;", "&", "|", "<>", "<|>", "\ud800", "\x00", "\x1b[2J", "\u202e",
    "\u2028", "\n", "\t", "\u00a0", "é", "é", "🐤", "İ", "ß", "٣", "²", "½", "Ⅷ", "-", "+", "%", "NaN", "inf",
    "-1%", "1_0%",
)  # fmt: skip
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "../../etc/passwd", "", "\x00", "/etc/localtime", "x" * 300)


def line(dice: random.Random) -> str:
    """One line."""
    if dice.random() < 0.3:
        text = dice.choice([*COMMANDS.values()]).example
    else:
        text = dice.choice((" ", "  ", "")).join(dice.choice(WORDS) for _ in range(dice.randrange(14)))
    for _ in range(dice.choice((0, 0, 1, 3, 10))):
        text = _changed(dice, text)
    return text


def _changed(dice: random.Random, text: str) -> str:
    at = dice.randrange(len(text) + 1)
    to = min(len(text), at + dice.randrange(6))
    match dice.randrange(5):
        case 0:
            return text[:at] + text[to:]
        case 1:
            return text[:at] + dice.choice(WORDS) + text[at:]
        case 2:
            return text[:at] + chr(dice.choice((dice.randrange(128), dice.randrange(0x11000)))) + text[to:]
        case 3:
            return text[:at] + text[at:to] * dice.choice((2, 50, 600)) + text[to:]
        case _:
            return text.translate({ord(letter): letter.upper() for letter in string.ascii_lowercase})


def tried(text: str, zone: str) -> str:
    """Read a line; what is wrong with how it was read or answered."""
    try:
        understood = speech.understand(text)
        at = getattr(understood.args, "at", "")
        if isinstance(at, str) and is_moment(at):
            moment(at, NOW, zone)
        said = repr(understood.args)
    except UserError as error:
        shown = speech.explained(error)
        said = shown.text + json.dumps(shown.blocks, ensure_ascii=False)
        if re.search(r"<[!@#]", said):
            return f"a mention in the answer to {text!r}: {said!r}"
    try:
        decode(text).encode()
        said.encode()
    except UnicodeEncodeError:
        return f"no text that can be sent or kept comes of {text!r}"
    return ""


@asynccontextmanager
async def parser() -> AsyncIterator[Try]:
    """Tries lines."""

    async def attempt(dice: random.Random) -> str:
        text, zone = line(dice), dice.choice(ZONES)
        try:
            return tried(text, zone)
        except Exception as error:
            return f"{error!r} for {text!r} in {zone!r}"

    yield attempt


if __name__ == "__main__":
    sys.exit(main("parser", parser))
