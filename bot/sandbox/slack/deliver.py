"""Payloads to the bot, by Socket Mode or signed HTTP, with Slack's time limits and retries.

Signing: https://docs.slack.dev/authentication/verifying-requests-from-slack
"""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Coroutine
from typing import Any, Literal
from urllib.parse import urlencode

import aiohttp

from bot.sandbox.slack.blocks import Json
from bot.sandbox.slack.sockets import Ack, Sockets

ACK_S = 3.0
RETRY_DELAYS_S = (1.0, 60.0, 300.0)
EVENTS_PATH = "/slack/events"

Kind = Literal["slash_commands", "interactive", "events_api"]


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Slack's v0 signature of a request body sent at `timestamp` (Unix seconds)."""
    message = b"v0:" + timestamp.encode() + b":" + body
    return "v0=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


class Delivery:
    """Sends payloads; `mode`, `bot_url`, `ack_s` and `retry_delays_s` may be changed at any time."""

    def __init__(self, sockets: Sockets, *, mode: str, bot_url: str | None, signing_secret: str) -> None:
        self.sockets = sockets
        self.mode = mode
        self.bot_url = bot_url
        self.signing_secret = signing_secret
        self.session: aiohttp.ClientSession | None = None
        self._first = (mode, bot_url)
        self._tasks: set[asyncio.Task[Any]] = set()
        self.ack_s = ACK_S
        self.retry_delays_s: tuple[float, ...] = RETRY_DELAYS_S
        self.duplicate: bool | str = False

    def clear(self) -> None:
        """Back to how it was at the start; retries under way are dropped."""
        self.mode, self.bot_url = self._first
        self.ack_s, self.retry_delays_s, self.duplicate = ACK_S, RETRY_DELAYS_S, False
        for task in self._tasks:
            task.cancel()

    async def send(self, kind: Kind, payload: Json, *, accepts: bool = True) -> Ack:
        """Deliver a command or an interaction, never retried, and return how the bot answered."""
        again = self.duplicate == "all" or (self.duplicate and kind != "slash_commands")
        if self.mode == "http":
            body = _form(kind, payload)
            if again:
                stamp = str(int(time.time()))
                self.later(self._post(body, "application/x-www-form-urlencoded", {}, stamp))
                return await self._post(body, "application/x-www-form-urlencoded", {}, stamp)
            return await self._post(body, "application/x-www-form-urlencoded", {})
        if again:
            self.later(self._socket(kind, payload, accepts, {}))
        return await self._socket(kind, payload, accepts, {})

    def send_event(self, payload: Json) -> None:
        """Deliver an event in the background, with up to three retries."""
        self.later(self._event(payload))
        if self.duplicate:
            self.later(self._event(payload))

    def later(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run it in the background and keep the task."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Drop what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.session is not None:
            await self.session.close()

    async def _event(self, payload: Json) -> None:
        reason = ""
        for attempt in range(1 + len(self.retry_delays_s)):
            if attempt:
                await asyncio.sleep(self.retry_delays_s[attempt - 1])
            if self.mode == "http":
                retry = {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": reason} if attempt else {}
                ack = await self._post(json.dumps(payload).encode(), "application/json", retry)
            else:
                extra = {"retry_attempt": attempt, "retry_reason": reason}
                ack = await self._socket("events_api", payload, False, extra)
            if ack.error is None or ack.no_retry:
                return
            reason = ack.reason

    async def _socket(self, kind: Kind, payload: Json, accepts: bool, extra: Json) -> Ack:
        return await self.sockets.send(kind, payload, accepts=accepts, within_s=self.ack_s, extra=extra)

    async def _post(self, body: bytes, content_type: str, headers: dict[str, str], stamp: str | None = None) -> Ack:
        began = time.monotonic()
        if self.bot_url is None:
            return Ack("dispatch_failed", 0.0, reason="connection_failed")
        if self.session is None:
            self.session = aiohttp.ClientSession()
        stamp = stamp or str(int(time.time()))
        headers = {
            "Content-Type": content_type,
            "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
            "X-Slack-Request-Timestamp": stamp,
            "X-Slack-Signature": signature(self.signing_secret, stamp, body),
            **headers,
        }
        url = self.bot_url.rstrip("/") + EVENTS_PATH
        try:
            async with self.session.post(
                url, data=body, headers=headers, timeout=aiohttp.ClientTimeout(total=self.ack_s)
            ) as answer:
                text = await answer.text()
                ms = round((time.monotonic() - began) * 1000, 1)
                no_retry = answer.headers.get("X-Slack-No-Retry") == "1"
                if answer.status != 200:
                    return Ack("dispatch_failed", ms, reason="http_error", no_retry=no_retry)
                return Ack(None, ms, _decoded(text))
        except TimeoutError:
            ms = round((time.monotonic() - began) * 1000, 1)
            return Ack("operation_timeout", ms, reason="http_timeout")
        except aiohttp.ClientError:
            ms = round((time.monotonic() - began) * 1000, 1)
            return Ack("dispatch_failed", ms, reason="connection_failed")


def _form(kind: Kind, payload: Json) -> bytes:
    if kind == "slash_commands":
        return urlencode(payload).encode()
    return urlencode({"payload": json.dumps(payload)}).encode()


def _decoded(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except ValueError:
        return text
