"""The pager: Alertmanager's webhook format over real HTTP, and what happens when nobody answers."""

import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from bot.adapters.pager import WebhookPager
from bot.errors import Transient
from bot.rollout.effects import Page
from tests.fakes.clock import FakeClock

PAGE = Page("payments-7f3a/zero", "payments-7f3a cannot be rolled back", "The API server refuses: forbidden.")


class Receiver:
    """A webhook that remembers what it got."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 200
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.bodies.append(await request.json())
        return web.Response(status=self.status, headers={"Location": "/elsewhere"})


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook/s3cret", receiver.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook/s3cret"
    yield receiver
    await runner.cleanup()


async def test_an_alert_fires_and_is_resolved(receiver: Receiver) -> None:
    """Both are the same alert to Alertmanager: labels, fingerprint and start stay, only the end comes."""
    clock = FakeClock(1_800_000_000.0)
    pager = WebhookPager(receiver.url, clock)
    await pager.page(PAGE)
    clock.advance(300)
    await pager.page(PAGE)
    await pager.page(Page(PAGE.key, "payments-7f3a was rolled back", resolved=True))
    first, second, last = receiver.bodies
    assert (first["version"], first["status"], last["status"]) == ("4", "firing", "resolved")
    assert first["alerts"][0] == {
        "status": "firing",
        "labels": {"alertname": "CanaryBot", "key": PAGE.key, "severity": "critical"},
        "annotations": {"summary": PAGE.summary, "description": PAGE.detail},
        "startsAt": "2027-01-15T08:00:00.000Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "",
        "fingerprint": first["alerts"][0]["fingerprint"],
    }
    for later in (second, last):
        assert later["groupKey"] == first["groupKey"]
        for name in ("labels", "startsAt", "fingerprint"):
            assert later["alerts"][0][name] == first["alerts"][0][name]
    assert last["alerts"][0]["endsAt"] == "2027-01-15T08:05:00.000Z"


@pytest.mark.parametrize("status", [302, 404, 429, 500])
async def test_a_refusal_is_transient(receiver: Receiver, status: int) -> None:
    """Whoever pages is told that it did not arrive; the URL is not in the words."""
    receiver.status = status
    with pytest.raises(Transient, match=str(status)) as refused:
        await WebhookPager(receiver.url, FakeClock()).page(PAGE)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/s3cret", "not an address s3cret"])
async def test_nobody_there_is_transient(url: str) -> None:
    """No answer, or no address at all: the same, without the URL in words or cause."""
    with pytest.raises(Transient) as refused:
        await WebhookPager(url, FakeClock()).page(PAGE)
    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_without_an_address_a_page_is_a_log_line(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing configured is no error; the log has it."""
    with caplog.at_level(logging.INFO):
        await WebhookPager("", FakeClock()).page(PAGE)
    assert PAGE.summary in caplog.text
