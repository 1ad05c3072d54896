"""What people type after `/canary`, as words with their places: Slack's escapes and a phone's habits undone.

Slack sends `error-rate&lt;1%`, `<http://payments.shop|payments.shop>` and `<@U123|ada>`; phones turn `--` into a dash
and straight quotes into curly ones. All of that is undone here, once, so that every later word is what was meant.
"""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bot.errors import UserError

LONGEST = 2000
_ESCAPED = re.compile(r"<([^<>]*)>")
_ENTITIES = (("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&"))
_CLOSING = {'"': '"”', "'": "'’", "“": '”"“', "„": '“”"', "‘": "’'", "«": "»", "`": "`"}
_DASHES = str.maketrans({"—": "--", "–": "--"})


class Misunderstood(UserError):
    """The line could not be read: what was expected, at which characters, and an example."""

    def __init__(self, line: str, start: int, width: int, expected: str, example: str) -> None:
        super().__init__(expected, example)
        self.line = line
        self.start = start
        self.width = max(1, width)


@dataclass(frozen=True, slots=True)
class Word:
    """One word of the line, where it begins and ends, and whether it stood in quotes."""

    text: str
    start: int
    end: int
    quoted: bool = False

    @property
    def key(self) -> str:
        """The word as a keyword; quoted words are none."""
        return "" if self.quoted else self.text.lower()


def decode(text: str) -> str:
    """The line as the person typed it, on one line; halves of characters, which JSON can carry, become `?`."""
    line = _ESCAPED.sub(_as_typed, text.encode("utf-8", "replace").decode())
    for entity, character in _ENTITIES:
        line = line.replace(entity, character)
    return " ".join(line.split())


def _as_typed(found: re.Match[str]) -> str:
    target, _, label = found[1].partition("|")
    match target[:1]:
        case "@":
            return target if not label else f"@{label.removeprefix('@')}"
        case "#":
            return f"#{label}" if label else target
        case "!":
            return f"@{label.removeprefix('@')}" if label else f"@{target[1:].partition('^')[0]}"
        case _:
            return label or target


def words(line: str) -> tuple[Word, ...]:
    """The words of a decoded line. Raises Misunderstood when a quote is not closed."""
    found: list[Word] = []
    position = 0
    while position < len(line):
        character = line[position]
        if character == " ":
            position += 1
        elif character in _CLOSING and (end := _closing(line, position, _CLOSING[character])):
            found.append(Word(line[position + 1 : end], position, end + 1, quoted=True))
            position = end + 1
        else:
            end = line.find(" ", position)
            end = len(line) if end < 0 else end
            found.append(Word(_dashes(line[position:end]), position, end))
            position = end
    return tuple(found)


def _closing(line: str, start: int, closers: str) -> int:
    """Where a quote that opens at `start` ends; 0 for an apostrophe that opens nothing."""
    for position in range(start + 1, len(line)):
        if line[position] in closers and (position + 1 == len(line) or line[position + 1] == " "):
            return position
    if line[start] in "'‘`":
        return 0
    raise Misunderstood(line, start, 1, "This quote is not closed.", 'hold payments-7f3a "waiting for the database"')


def _dashes(word: str) -> str:
    return word.translate(_DASHES) if word[:1] in "—–" else word


class Line:
    """The words of one command, taken from left to right. `example` is shown with every complaint."""

    def __init__(self, text: str, taken: tuple[Word, ...], example: str) -> None:
        self.text = text
        self.example = example
        self._words = taken
        self._next = 0

    def ended(self) -> bool:
        """No word is left."""
        return self._next >= len(self._words)

    def peek(self, ahead: int = 0) -> Word | None:
        """The next word without taking it."""
        index = self._next + ahead
        return self._words[index] if index < len(self._words) else None

    def take(self, expected: str) -> Word:
        """The next word; complains that `expected` is missing when there is none."""
        word = self.peek()
        if word is None:
            raise self.missing(expected)
        self._next += 1
        return word

    def take_key(self, *keys: str) -> bool:
        """Take the next word if it is one of these keywords."""
        word = self.peek()
        if word is None or word.key not in keys:
            return False
        self._next += 1
        return True

    def rest(self) -> str:
        """Everything that is left, as it was typed; quotes around all of it are taken off."""
        word = self.peek()
        if word is None:
            return ""
        taken, self._next = self._words[self._next :], len(self._words)
        if len(taken) == 1:
            return taken[0].text
        return self.text[word.start :]

    def end(self) -> None:
        """Complain about words that nobody asked for."""
        word = self.peek()
        if word is not None:
            raise self.wrong(word, "Nothing more was expected here.")

    def wrong(self, word: Word, expected: str) -> Misunderstood:
        """A complaint about one word."""
        return Misunderstood(self.text, word.start, word.end - word.start, expected, self.example)

    def missing(self, expected: str) -> Misunderstood:
        """A complaint about the end of the line."""
        return Misunderstood(self.text, len(self.text) + 1, 1, f"Expected {expected} here.", self.example)


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that was probably meant, "" when none is near."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return near[0] if near else ""
