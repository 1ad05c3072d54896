"""Slack's rate limits: token buckets per method, per channel and per workspace.

Figures: https://docs.slack.dev/apis/web-api/rate-limits . Slack does not publish its burst allowance; a small one is
assumed here, so that a bot that leans on bursts is found out.
"""

import math
from dataclasses import dataclass

TIER_PER_MINUTE = {1: 1.0, 2: 20.0, 3: 50.0, 4: 100.0}
TIER_BURST = {1: 20.0, 2: 20.0, 3: 50.0, 4: 100.0}
POST_PER_MINUTE, POST_BURST = 60.0, 6.0


@dataclass(slots=True)
class _Bucket:
    per_s: float
    burst: float
    tokens: float
    at: float

    def take(self, now: float) -> float:
        """0 when taken, else the seconds until it can be."""
        self.tokens = min(self.burst, self.tokens + (now - self.at) * self.per_s)
        self.at = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / self.per_s


class RateLimits:
    """All buckets of the workspace; times are monotonic seconds, given by the caller."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def retry_after_s(self, method: str, tier: int, channel: str | None, now: float) -> int:
        """Whole seconds to wait before this call, 0 when it may go ahead (and is then counted)."""
        if method == "chat.postMessage":
            key, per_minute, burst = (method, channel or ""), POST_PER_MINUTE, POST_BURST
        else:
            key, per_minute, burst = (method, ""), TIER_PER_MINUTE[tier], TIER_BURST[tier]
        bucket = self._buckets.setdefault(key, _Bucket(per_minute / 60, burst, burst, now))
        return math.ceil(bucket.take(now))
