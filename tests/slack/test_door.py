"""The HTTP door for those who watch the bot."""

from __future__ import annotations

import aiohttp

from tests.fixtures.slack import SlackServer
from tests.slack.office import office


async def test_health_readiness_and_metrics(slack_server: SlackServer) -> None:
    """All is well while Slack is connected; metrics are served as they are given."""
    async with office(slack_server, engine=False) as made, aiohttp.ClientSession() as session:
        for path, text in (("healthz", "alive\n"), ("readyz", "ready\n"), ("metrics", "up 1\n")):
            async with session.get(f"{made.door.address}/{path}") as answer:
                assert (answer.status, await answer.text()) == (200, text)


async def test_a_lost_connection_is_not_ready_and_says_why(slack_server: SlackServer) -> None:
    """Readiness names what is wrong with 503."""
    async with office(slack_server, engine=False) as made, aiohttp.ClientSession() as session:
        await made.entrance.stop(1.0)
        async with session.get(f"{made.door.address}/readyz") as answer:
            assert (answer.status, await answer.text()) == (503, "Slack's Socket Mode is not connected\n")


async def test_in_socket_mode_there_is_no_door_for_requests(slack_server: SlackServer) -> None:
    """Slack's path takes nothing when the bot was given no signing secret."""
    async with office(slack_server, engine=False) as made, aiohttp.ClientSession() as session:
        answer = await session.post(f"{made.door.address}/slack/events", data=b"{}")
        assert answer.status == 503
        answer.release()


async def test_while_ending_requests_are_sent_elsewhere(slack_server: SlackServer) -> None:
    """A closed entrance answers 503, so that Slack tries again; health goes on."""
    async with office(slack_server, mode="http", engine=False) as made, aiohttp.ClientSession() as session:
        await made.entrance.stop(1.0)
        async with session.post(f"{made.door.address}/slack/events", data=b"{}") as answer:
            assert answer.status == 503
        async with session.get(f"{made.door.address}/healthz") as answer:
            assert answer.status == 200
