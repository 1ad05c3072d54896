"""Socket Mode into the same app: one envelope in, the body of its acknowledgement out."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest

Receive = Callable[[dict[str, Any], dict[str, str]], Awaitable[tuple[bool, dict[str, Any] | None]]]


def receiver(app: AsyncApp) -> Receive:
    """What a connection calls with a payload and its retry headers: whether to acknowledge, and with what."""

    async def receive(payload: dict[str, Any], headers: dict[str, str]) -> tuple[bool, dict[str, Any] | None]:
        answer = await app.async_dispatch(AsyncBoltRequest(mode="socket_mode", body=payload, headers=dict(headers)))
        if answer.status != 200:
            return False, None
        if not answer.body:
            return True, None
        if answer.headers.get("content-type", [""])[0].startswith("application/json"):
            return True, json.loads(answer.body)
        return True, {"text": answer.body}

    return receive
