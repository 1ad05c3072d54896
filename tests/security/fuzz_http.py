"""Bytes for the HTTP port: requests of Slack's, signed rightly or not, changed in their structure or in their bytes."""

from __future__ import annotations

import asyncio
import copy
import json
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote_plus

from tests.security.doorway import FORM, doorway, request, signed, slash
from tests.security.fuzz_parser import line
from tests.security.fuzzing import Try, main

AT_ONCE = 16
"""Connections of one case."""
JSON = "application/json"
POINTER = '{"rollout":"payments-7f3a","revision":3,"step":0}'
USER = {"id": "U0ADA", "name": "ada", "team_id": "T0SANDBOX"}
CLICK: dict[str, Any] = {
    "type": "block_actions",
    "user": USER,
    "team": {"id": "T0SANDBOX", "domain": "x"},
    "channel": {"id": "C0PAYMENTS"},
    "container": {"type": "message", "channel_id": "C0PAYMENTS", "thread_ts": "1.2"},
    "trigger_id": "1",
    "response_url": "",
    "actions": [{"type": "button", "action_id": "hold", "block_id": "b", "value": POINTER}],
}
VIEW: dict[str, Any] = {
    "type": "view_submission",
    "user": USER,
    "team": {"id": "T0SANDBOX"},
    "view": {
        "type": "modal",
        "id": "V1",
        "hash": "h",
        "callback_id": "reject",
        "private_metadata": json.dumps({"value": POINTER, "channel": "C1", "thread": "", "response_url": ""}),
        "state": {"values": {"reason": {"text": {"type": "plain_text_input", "value": "no"}}}},
    },
}
EVENT: dict[str, Any] = {
    "type": "event_callback",
    "team_id": "T0SANDBOX",
    "event_id": "Ev1",
    "authorizations": [{"team_id": "T0SANDBOX", "user_id": "U0CANARY", "is_bot": True}],
    "event": {"type": "app_mention", "user": "U0ADA", "channel": "C1", "text": "<@U0CANARY> status", "ts": "1.2"},
}
DIRECT: dict[str, Any] = {**EVENT, "event": {**EVENT["event"], "type": "message", "channel_type": "im"}}
OTHERS: tuple[dict[str, Any], ...] = (
    {"type": "url_verification", "challenge": "x"},
    {"type": "view_closed", "user": USER, "view": {"callback_id": "reject"}},
    {"type": "shortcut", "callback_id": "x", "user": USER},
    {"type": "message_action", "callback_id": "x", "user": USER},
    {"type": "block_suggestion", "action_id": "x", "user": USER},
    {"ssl_check": "1"},
)
VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1e308, 10**30, "", "x", "<!channel>", "\ud800", "\x00", "x" * 3000, [], {}, [[]], {"id": None},
    "reject", "hold", "more", "approve", "im", "[" * 2000, POINTER, "U0CANARY", [1], {"type": "x"}, '{"rollout":1e999}',
)  # fmt: skip
TYPES = (FORM, JSON, "text/plain", "multipart/form-data; boundary=x", "", "application/json; charset=utf-16", "x" * 300)
HEADERS = (
    "X-Slack-Signature", "X-Slack-Request-Timestamp", "X-Slack-Retry-Num", "X-Slack-Retry-Reason", "Content-Encoding",
    "Content-Length", "Transfer-Encoding", "Expect", "Connection", "Host", "Cookie", "X-Slack-Bolt-Lazy-Only",
    "X-Slack-Bolt-Lazy-Function-Name", "Upgrade", "Content-Type", "Accept",
)  # fmt: skip
TEXTS = (
    "", "1", "-1", "0", "gzip", "deflate", "br", "chunked", "identity", "100-continue", "close",
    "websocket", "é", "\x00",
    "v0=" + "0" * 64, "9" * 5000, "x" * 9000, "a,b", "text/html", "utf-8", "\t", "2", "99999999",
)  # fmt: skip
PATHS = (*("/slack/events",) * 8, "/metrics", "/healthz", "/../..", "//", "/%00", "*", "/slack/events?" + "a=" * 99)
METHODS = (b"GET", b"PUT", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PATCH", b"DELETE", b"P\xf6ST", b"PRI", b"")


def body(dice: random.Random) -> tuple[bytes, str]:
    """A body of Slack's, often changed, and its content type."""
    kind = dice.randrange(4)
    if kind == 0:
        fields = slash(line(dice).encode("utf-8", "replace").decode()[:3000], trigger=str(dice.random()))
        return fields, FORM
    payload = copy.deepcopy(dice.choice((CLICK, CLICK, VIEW, EVENT, DIRECT, *OTHERS)))
    for _ in range(dice.choice((0, 1, 1, 2, 5))):
        _change(dice, payload)
    if "trigger_id" in payload and payload["trigger_id"] == "1":
        payload["trigger_id"] = str(dice.random())
    text = json.dumps(payload)
    if kind == 1 or payload.get("type") == "event_callback":
        return text.encode(), JSON
    return b"payload=" + quote_plus(text).encode(), FORM


def _change(dice: random.Random, value: Any) -> None:
    """Put something else somewhere into a payload, or take a part away."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and dice.random() < 0.7:
            value = value[key]
            continue
        if dice.random() < 0.3:
            del value[key]
        else:
            value[key] = copy.deepcopy(dice.choice(VALUES))
        return


def data(dice: random.Random) -> bytes:
    """All the bytes of one connection."""
    content, content_type = body(dice)
    if dice.random() < 0.15:
        content = _bytes(dice, content)
    headers = signed(content, age_s=dice.choice((0, 0, 0, 200, 400))) if dice.random() < 0.8 else {}
    if dice.random() < 0.15:
        content_type = dice.choice(TYPES)
    for _ in range(dice.choice((0, 0, 0, 1, 2))):
        headers[dice.choice(HEADERS)] = dice.choice(TEXTS)
    path = dice.choice(
        ("/slack/events",) * 8 + ("/metrics", "/healthz", "/../..", "//", "/%00", "*", "/slack/events?" + "a=" * 99)
    )
    whole = request(content, headers, content_type=content_type, path=path)
    match dice.randrange(12):
        case 0:
            return _bytes(dice, whole)
        case 1:
            return dice.choice(METHODS) + whole[4:]
        case 2:
            return whole[: dice.randrange(len(whole))]
        case 3:
            return request(content, headers, content_type=content_type, close=False) + whole
        case 4:
            chunks = (
                f"{len(content):x}\r\n".encode()
                + content
                + b"\r\n"
                + dice.choice((b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"-1\r\n"))
            )
            return whole[: len(whole) - len(content) - 2] + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        case _:
            return whole


def _bytes(dice: random.Random, whole: bytes) -> bytes:
    for _ in range(dice.choice((1, 3, 20))):
        at = dice.randrange(len(whole) + 1)
        piece = dice.choice(
            (b"", dice.randbytes(1), dice.randbytes(8), b"\r\n", b"\x00", b"[" * 2000, whole[:at][-40:])
        )
        whole = whole[:at] + piece + whole[at + dice.randrange(4) :]
    return whole


@asynccontextmanager
async def port() -> AsyncIterator[Try]:
    """Tries bytes on a door whose world is faked."""
    async with doorway(idle_s=0.05, slowest_s=0.05, lingering_s=0.05) as made:
        seen = 0

        async def attempt(dice: random.Random) -> str:
            nonlocal seen
            sent = (made.send(data(dice), within_s=30.0) for _ in range(AT_ONCE))
            answers = await asyncio.gather(*sent, return_exceptions=True)
            await made.intake.idle()
            unhandled, seen = made.unhandled[seen:], len(made.unhandled)
            wrong = [repr(one) for one in answers if isinstance(one, BaseException) or b" 500 " in one[:16]]
            return "; ".join([*unhandled, *wrong])

        yield attempt


if __name__ == "__main__":
    sys.exit(main("http", port, AT_ONCE))
