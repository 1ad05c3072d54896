"""What a demo prints: every announcement once, as people would read it in Slack, and each story's figures."""

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from html import unescape
from typing import Protocol

import aiohttp

from bot.sandbox.demo.clients import Clients, Json, Refused

POLL_S = 0.1
LOG_LINES = 15
_LONG_CHARS = 40
_SENTENCE = re.compile(r"(?<=\.) (?=\S)")
_REFERENCE = re.compile(r"<(!subteam\^|@|!date\^)([^|>]+)(?:\|([^>]*))?>")
_TONES = {"✅": "good", "🔴": "bad", "✋": "wait", "🖥": "wait"}
_ROUTINE = frozenset({"wake"})
_NOISE = frozenset({"event", "timestamp", "level", "exception"})


class Say(Protocol):
    """Prints one line; `tone` is title, person, good, bad, wait, quiet or "", for a terminal with colours."""

    def __call__(self, text: str = "", tone: str = "") -> None: ...


class Echo:
    """Prints announcements as they are posted; `shown` says which by channel and timestamp."""

    def __init__(self, clients: Clients, say: Say) -> None:
        self._clients = clients
        self._say = say
        self._names: dict[str, str] = {}
        self._said: set[str] = set()
        self.shown: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Print for ever."""
        while True:
            await self.round()
            await asyncio.sleep(POLL_S)

    async def round(self) -> None:
        """Print what is new."""
        with suppress(Refused, aiohttp.ClientError, TimeoutError):
            if not self._names:
                self._names = await self._clients.names()
            for message in await self._clients.messages():
                key = (message["channel"], message["ts"])
                if key not in self.shown and not message["ephemeral_to"]:
                    self.shown.add(key)
                    self._print(message)

    def _print(self, message: Json) -> None:
        text = unsaid(self._readable(message["text"]), self._said)
        if not text:
            return
        at = datetime.fromtimestamp(float(message["ts"])).astimezone().strftime("%H:%M:%S")
        where = "  └ " if message["thread_ts"] else f"{self._names.get(message['channel'], '')}  "
        self._say(f"{at}  {where}{text}", next((tone for mark, tone in _TONES.items() if text.startswith(mark)), ""))

    def _readable(self, text: str) -> str:
        def name(found: re.Match[str]) -> str:
            return found[3] or self._names.get(found[2], found[2])

        return unescape(_REFERENCE.sub(name, text)).strip()


def unsaid(text: str, said: set[str]) -> str:
    """The text without an end that was said before, "" when all of it was; adds its sentences to `said`."""
    if text in said:
        return ""
    told = max((one for one in said if len(one) >= _LONG_CHARS and text.endswith(one)), key=len, default="")
    said |= {text, *_SENTENCE.split(text)}
    return text.removesuffix(told).rstrip(" :")


def summary(report: Json) -> list[tuple[str, str]]:
    """A story's figures as (line, tone)."""
    promoted = report["outcome"] == "promoted"
    lines = [(f"{report['service']}: {report['outcome'].replace('_', ' ')}", "good" if promoted else "bad")]
    if report["reason"]:
        lines.append((f"  because {report['reason']}", ""))
    lines += [
        (f"  {row['weight']:>3}% wanted  {row['observed_share']:>6}% of {row['requests']} requests observed", "")
        for row in report["steps"]
    ]
    if report["approval"]:
        lines.append((f"  approved by {report['approval']['by']} at {report['approval']['at']}", ""))
    times = {name: datetime.fromisoformat(at).timestamp() for name, at in report["timings"].items() if at}
    if "visible_at" in times and "zero_at" in times:
        lines.append((f"  failing value visible to weight 0  {times['zero_at'] - times['visible_at']:.2f} s", ""))
    if "verdict_at" in times and "zero_at" in times:
        lines.append((f"  verdict to weight 0  {1000 * (times['zero_at'] - times['verdict_at']):.0f} ms", ""))
    if report["errors_after_verdict"] is not None:
        lines.append((f"  failed requests of the canary after the verdict  {report['errors_after_verdict']}", ""))
    return lines


def end_of_log(lines: Iterable[Json]) -> list[str]:
    """The last lines of the bot's log that are no routine, in short."""
    return [_short(line) for line in [line for line in lines if line.get("event") not in _ROUTINE][-LOG_LINES:]]


def _short(line: Json) -> str:
    more = [f"{name}={value}" for name, value in line.items() if name not in _NOISE and value != ""]
    trace = str(line.get("exception", "")).strip().rpartition("\n")[2]
    return " ".join(["  " + str(line.get("timestamp", ""))[11:23], str(line.get("event")), *more, trace]).rstrip()
