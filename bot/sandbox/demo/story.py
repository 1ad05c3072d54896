"""The two stories: payments v2 is good and promoted with an approval, checkout v2 fails 5% and is rolled back."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Set
from dataclasses import dataclass, field
from datetime import datetime

from bot.sandbox.demo.clients import Clients, Json
from bot.sandbox.demo.prober import Seen, first_failure
from bot.sandbox.demo.telling import Say

STORY_S = 90.0
POLL_S = 0.1
SCRAPE_S = 1.0
MARK = "canary-bot.dev/rollout"
STARTER, APPROVER = "U0ADA", "U0GRACE"
FAIL_PERCENT, LIMIT, MIN_REQUESTS = 5.0, 0.01, 40
THINKS_S = 1.0
Shown = Set[tuple[str, str]]


class StoryFailed(RuntimeError):
    """A story did not go as it should; the text says where it stood."""


@dataclass(slots=True)
class Told:
    """What a story saw while it ran; the report is made from it."""

    service: str
    channel: str
    started_at: float
    rollout: str = ""
    approved_by: str = ""
    approved_at: float | None = None
    visible: Seen | None = None
    writes: list[Json] = field(default_factory=list)
    messages: list[Json] = field(default_factory=list)
    ended_at: float = 0.0
    mark: Json = field(default_factory=dict)


async def good_release(clients: Clients, say: Say, shown: Shown) -> Told:
    """`/canary start payments v2`, approve when asked (and `shown`), wait for Promoted."""
    told = Told("payments", "#payments", time.time())
    say("Ada types: /canary start payments v2", "person")
    await clients.act("command", user=STARTER, channel="C0PAYMENTS", text="/canary start payments v2")

    async def approve_when_asked() -> None:
        if told.approved_at is not None:
            return
        for message in await clients.messages(told.channel):
            button = _button(message, "approve")
            asked_at = float(message["ts"])
            if button is None or not told.started_at < asked_at < time.time() - THINKS_S:
                continue
            if message["edit_count"] or (message["channel"], message["ts"]) not in shown:
                # The card was shown long ago and has the button as well, perhaps before the question is posted.
                continue
            say(f"Grace clicks: {button['text']['text']}", "person")
            told.approved_at, told.approved_by = time.time(), APPROVER
            await clients.act(
                "click", user=APPROVER, channel=message["channel"], ts=message["ts"], action_id=button["action_id"]
            )
            return

    await _until_final(clients, told, approve_when_asked)
    return told


async def bad_release(clients: Clients, say: Say, _shown: Shown) -> Told:
    """checkout v2 fails 5% of its requests; start it and wait for RolledBack, with a prober beside."""
    told = Told("checkout", "#checkout", time.time())
    await clients.fault("mesh", workloads={"checkout-v2": {"fail_percent": FAIL_PERCENT}})
    say("Ada types: /canary start checkout v2 steps 25%:10s,50%:10s,100%:10s", "person")
    await clients.act(
        "command",
        user=STARTER,
        channel="C0CHECKOUT",
        text="/canary start checkout v2 steps 25%:10s,50%:10s,100%:10s",
    )
    prober = asyncio.create_task(_probe(clients, told))
    try:
        await _until_final(clients, told, _nothing)
        if not prober.done():
            await asyncio.wait({prober}, timeout=5.0)
        told.visible = prober.result() if prober.done() else None
    finally:
        prober.cancel()
        await asyncio.gather(prober, return_exceptions=True)
        await clients.fault("mesh", workloads={"checkout-v2": None})
    return told


async def _probe(clients: Clients, told: Told) -> Seen:
    """Wait for the first weight on the route, then for the failing value in Prometheus.

    A gate's window begins one scrape after the weight was confirmed, so the prober's does.
    """
    while not (raised := [write for write in await _weights(clients, told) if write["weight"] > 0]):
        await asyncio.sleep(POLL_S)
    return await first_failure(
        clients, told.service, "v2", since=raised[0]["at"] + SCRAPE_S, limit=LIMIT, min_requests=MIN_REQUESTS
    )


async def _until_final(clients: Clients, told: Told, each: Callable[[], Awaitable[None]]) -> None:
    """Poll the route's mark until it is final and the final words are in the channel."""
    deadline = time.monotonic() + STORY_S
    while True:
        await each()
        told.writes = await _weights(clients, told)
        told.mark = told.writes[-1]["mark"] if told.writes else {}
        told.rollout = told.mark.get("rollout", "")
        if told.mark.get("phase") in ("Promoted", "RolledBack"):
            told.ended_at = told.ended_at or time.time()
            await _collect(clients, told)
            if _all_say_the_end(told.messages, told.mark["phase"]):
                return
        if time.monotonic() > deadline:
            await _collect(clients, told)
            said = told.messages[-1]["text"] if told.messages else "nothing was posted"
            raise StoryFailed(
                f"{told.service} did not end within {STORY_S:.0f} s; its route says {told.mark or 'nothing'}; "
                f"last: {said}"
            )
        await asyncio.sleep(POLL_S)


async def _collect(clients: Clients, told: Told) -> None:
    told.messages = [
        message for message in await clients.messages(told.channel) if float(message["ts"]) >= told.started_at
    ]


def _all_say_the_end(messages: list[Json], phase: str) -> bool:
    """Whether the card says it and a reply to it, and, of a roll back, a message of its own in the channel."""
    word = "promoted" if phase == "Promoted" else "rolled back"
    public = [message for message in messages if not message["ephemeral_to"]]
    replies = [word in message["text"].lower() for message in public if message["thread_ts"]]
    card, *others = [word in message["text"].lower() for message in public if not message["thread_ts"]] or [False]
    return card and any(replies) and (phase == "Promoted" or any(others))


async def _weights(clients: Clients, told: Told) -> list[Json]:
    """Our writes to the story's route: time (epoch seconds), the canary's weight, and the mark."""
    found = []
    for write in await clients.route_writes(told.service):
        after = write.get("after") or {}
        mark = (after.get("metadata", {}).get("annotations") or {}).get(MARK)
        at = datetime.fromisoformat(write["time"]).timestamp()
        if mark is None or at < told.started_at:
            continue
        found.append({"at": at, "weight": _canary_weight(after), "mark": json.loads(mark)})
    return found


def _canary_weight(manifest: Json) -> int:
    """Weight of subset v2 over all http routes; a destination alone without a weight has all of it."""
    for route in manifest["spec"].get("http", []):
        destinations = route.get("route", [])
        for one in destinations:
            if one["destination"].get("subset") == "v2":
                return int(one.get("weight", 100 if len(destinations) == 1 else 0))
    return 0


def _button(message: Json, verb: str) -> Json | None:
    for block in message["blocks"]:
        for element in block.get("elements", []) if block["type"] == "actions" else []:
            if element["type"] == "button" and str(element["action_id"]).startswith(verb):
                found: Json = element
                return found
    return None


async def _nothing() -> None:
    return
