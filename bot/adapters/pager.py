"""Paging beyond the chat: a webhook that speaks Alertmanager's format (version 4), so that what people already have
for Alertmanager (PagerDuty and Opsgenie bridges, Alertmanager's own receivers) takes our alerts as well.

Source of the format: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

import hashlib
import logging
from datetime import UTC, datetime
from typing import Any

from aiohttp import ClientError, ClientSession, ClientTimeout

from bot.errors import Transient
from bot.ports.clock import Clock
from bot.rollout.effects import Page

TIMEOUT_S = 5.0
ALERT_NAME = "CanaryBot"
_NOT_ENDED = "0001-01-01T00:00:00Z"

_log = logging.getLogger(__name__)


class WebhookPager:
    """Implements `Pager`. Without a URL a page is a log line. Errors never show the URL, which is a secret."""

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._started_at: dict[str, float] = {}

    async def page(self, page: Page) -> None:
        """Post one alert, firing or resolved; the same key is the same alert."""
        now = self._clock.now()
        started_at = self._started_at.setdefault(page.key, now)
        _log.log(
            logging.INFO if page.resolved else logging.ERROR,
            "%s %s: %s %s",
            "resolved" if page.resolved else "page",
            page.key,
            page.summary,
            page.detail,
        )
        if self._url:
            await self._post(payload(page, started_at, now))
        if page.resolved:
            del self._started_at[page.key]

    async def _post(self, body: dict[str, Any]) -> None:
        try:
            async with (
                ClientSession(timeout=ClientTimeout(total=TIMEOUT_S), trust_env=False) as session,
                session.post(self._url, json=body, allow_redirects=False) as answer,
            ):
                if answer.status >= 300:
                    raise Transient(f"the alert webhook answered {answer.status}")
        except (ClientError, TimeoutError, OSError, ValueError) as error:
            raise Transient(f"the alert webhook cannot be reached: {type(error).__name__}") from None


def payload(page: Page, started_at: float, now: float) -> dict[str, Any]:
    """The webhook's body for one alert; times in epoch seconds."""
    status = "resolved" if page.resolved else "firing"
    labels = {"alertname": ALERT_NAME, "key": page.key, "severity": "critical"}
    annotations = {"summary": page.summary, "description": page.detail}
    alert = {
        "status": status,
        "labels": labels,
        "annotations": annotations,
        "startsAt": _rfc3339(started_at),
        "endsAt": _rfc3339(now) if page.resolved else _NOT_ENDED,
        "generatorURL": "",
        "fingerprint": hashlib.sha256(page.key.encode()).hexdigest()[:16],
    }
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{ALERT_NAME}", key="{page.key}"}}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "canary-bot",
        "groupLabels": {"alertname": ALERT_NAME, "key": page.key},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [alert],
    }


def _rfc3339(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
