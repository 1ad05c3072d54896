"""Socket Mode's connections: two of them, renewed without a gap, back after a loss, gone at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from bot.adapters.slack import SlackChat, Sockets
from tests.fakes.clock import FakeClock
from tests.fakes.telemetry import FakeTelemetry
from tests.fixtures.slack import SlackServer

WITHIN_S = 30.0


@asynccontextmanager
async def connected(slack: SlackServer, **options: Any) -> AsyncIterator[tuple[Sockets, FakeTelemetry, list[str]]]:
    """Open sockets that acknowledge everything, and what they were sent."""
    got: list[str] = []

    async def receive(payload: dict[str, Any], headers: dict[str, str]) -> tuple[bool, dict[str, Any] | None]:
        got.append(str(payload.get("text")))
        if payload.get("text") == "break":
            raise RuntimeError("broken listener")
        return True, {"text": f"ack of {payload.get('text')}"}

    chat = SlackChat(slack.bot_token, FakeClock(), base_url=slack.api_url)
    telemetry = FakeTelemetry()
    sockets = Sockets(chat.api, options.get("app_token", slack.app_token), receive, telemetry)
    await sockets.start()
    try:
        if "app_token" not in options:
            await asyncio.wait_for(sockets.wait_connected(), WITHIN_S)
        yield sockets, telemetry, got
    finally:
        await sockets.stop()
        await chat.close()


async def open_connections(slack: SlackServer, count: int) -> None:
    """Wait until Slack counts this many connections."""
    async with asyncio.timeout(WITHIN_S):
        while (await slack.look("world"))["connections"] != count:
            await asyncio.sleep(0.02)


async def say(slack: SlackServer, text: str) -> dict[str, Any]:
    return await slack.act("command", user="U0ADA", channel="#deploys", text=f"/canary {text}")


async def test_two_connections_are_kept_open(slack_server: SlackServer) -> None:
    """Each payload reaches the bot once, by any of them, and is acknowledged with the answer."""
    async with connected(slack_server) as (sockets, _, got):
        await open_connections(slack_server, 2)
        for number in range(6):
            done = await say(slack_server, f"n{number}")
            assert done["ok"]
        assert got == [f"n{number}" for number in range(6)]
        assert sockets.connected
    await open_connections(slack_server, 0)
    assert not sockets.connected


async def test_connections_that_are_asked_to_leave_are_replaced(slack_server: SlackServer) -> None:
    """When Slack asks all connections to come back, as many new ones take over, and commands are acknowledged."""
    async with connected(slack_server) as (sockets, telemetry, got):
        await open_connections(slack_server, 2)
        await slack_server.put("faults", disconnect=True)
        async with asyncio.timeout(WITHIN_S):
            while telemetry.counts["slack_sockets_renewed"] < 2:
                await asyncio.sleep(0.01)
        await open_connections(slack_server, 2)
        await asyncio.wait_for(sockets.wait_connected(), WITHIN_S)
        assert (await say(slack_server, "after"))["ok"]
        assert got == ["after"]
        assert telemetry.events("slack-socket-failed") == []


async def test_slack_being_away_is_waited_out(slack_server: SlackServer) -> None:
    """No connection is no crash: not ready meanwhile, and back by itself."""
    await slack_server.put("faults", errors=3)
    async with connected(slack_server, app_token="xapp-sandbox") as (sockets, telemetry, _):
        await asyncio.wait_for(sockets.wait_connected(), WITHIN_S)
        assert telemetry.events("slack-socket-failed")
        assert (await say(slack_server, "hello"))["ok"]


async def test_a_wrong_token_is_said_and_tried_again(slack_server: SlackServer) -> None:
    """The log names Slack's word; the bot is not ready, and does not die."""
    async with connected(slack_server, app_token="xapp-wrong") as (sockets, telemetry, _):
        async with asyncio.timeout(WITHIN_S):
            while not telemetry.events("slack-socket-failed"):
                await asyncio.sleep(0.01)
        assert "invalid_auth" in str(telemetry.events("slack-socket-failed")[0])
        assert not sockets.connected


async def test_a_broken_listener_is_reported_and_the_next_payload_taken(slack_server: SlackServer) -> None:
    """An error while acknowledging is a log line with its traceback, and costs one acknowledgement."""
    async with connected(slack_server) as (_, telemetry, got):
        await open_connections(slack_server, 2)
        broken = asyncio.create_task(say(slack_server, "break"))
        async with asyncio.timeout(WITHIN_S):
            while not telemetry.failures:
                await asyncio.sleep(0.01)
        assert (await say(slack_server, "next"))["ok"]
        assert got == ["break", "next"]
        assert not (await broken)["ok"]


async def test_the_old_connection_serves_until_the_new_one_is_open() -> None:
    """A warning opens the replacement at once, while payloads on the old connection are still acknowledged."""
    opened: list[web.WebSocketResponse] = []
    acknowledged: asyncio.Queue[str] = asyncio.Queue()

    async def tickets(request: web.Request) -> web.Response:
        return web.json_response({"ok": True, "url": f"ws://{request.host}/link"})

    async def link(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        opened.append(socket)
        await socket.send_json({"type": "hello"})
        async for message in socket:
            await acknowledged.put(message.json()["envelope_id"])
        return socket

    async def receive(payload: dict[str, Any], headers: dict[str, str]) -> tuple[bool, dict[str, Any] | None]:
        return True, None

    server = web.Application()
    server.add_routes([web.post("/api/apps.connections.open", tickets), web.get("/link", link)])
    runner = web.AppRunner(server, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    chat = SlackChat("xoxb-x", FakeClock(), base_url=f"http://127.0.0.1:{runner.addresses[0][1]}/api/")
    sockets = Sockets(chat.api, "xapp-x", receive, FakeTelemetry(), connections=1)
    await sockets.start()
    try:
        async with asyncio.timeout(WITHIN_S):
            await sockets.wait_connected()
            await opened[0].send_json({"type": "disconnect", "reason": "warning"})
            while len(opened) < 2:
                await asyncio.sleep(0.01)
            await opened[0].send_json({"type": "slash_commands", "envelope_id": "late", "payload": {}})
            assert await acknowledged.get() == "late"
            assert not opened[0].closed
    finally:
        await sockets.stop()
        await chat.close()
        await runner.cleanup()
