"""Counters, gauges and histograms of the process, in Prometheus' text format."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "canary_bot"
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
FINE_BUCKETS_S = tuple(round(0.001 * 1.5**power, 4) for power in range(26))
"""From a millisecond to half a minute, each half as much again as the one before."""

COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "weight_changes": ("Weight changes confirmed on routes", ("direction",)),
    "messages_posted": ("Messages posted to the chat", ()),
    "messages_edited": ("Messages edited in the chat", ()),
    "messages_delayed": ("Messages put off because the chat was slow, limited or away", ()),
    "messages_dropped": ("Messages the chat refused for good", ()),
    "slack_refused": ("Requests refused before they were read", ("reason",)),
    "slack_refusals": ("Requests of people who may not do what they asked for", ()),
    "slack_repeated": ("Deliveries that came a second time and were not done again", ()),
    "slack_requests_waiting": ("Requests whose holder had not taken them up in time", ()),
    "slack_sockets_renewed": ("Socket Mode connections that Slack asked to renew", ()),
    "wake_failures": ("Wake-ups that ended with an unexpected error", ()),
    "loop_failures": ("Loops of the engine that failed and were started again", ("loop",)),
}
GAUGES: dict[str, str] = {
    "active_rollouts": "Rollouts this process works on",
    "rollouts_overdue": "Rollouts that have waited for their look for longer than two of them take",
    "leading": "Leases that this process holds and works under: 0 or 1, or shards",
    "catalog_stale": "1 while the catalog file has errors and the former one is used",
}
HISTOGRAMS: dict[str, str] = {
    "wake_seconds": "Duration of one wake-up of one rollout",
    "wake_late_seconds": "Time from when a wake-up was due to its beginning",
    "route_write_seconds": "Duration of one write to a route, read back",
}
FINE = {"wake_late_seconds": FINE_BUCKETS_S}


class Instruments:
    """One registry of its own; unknown names are a mistake of ours and raise KeyError."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._counters = {
            name: Counter(f"{PREFIX}_{name}", text, labels, registry=self._registry)
            for name, (text, labels) in COUNTERS.items()
        }
        self._gauges = {name: Gauge(f"{PREFIX}_{name}", text, registry=self._registry) for name, text in GAUGES.items()}
        self._histograms = {
            name: Histogram(f"{PREFIX}_{name}", text, buckets=FINE.get(name, BUCKETS_S), registry=self._registry)
            for name, text in HISTOGRAMS.items()
        }

    def count(self, name: str, amount: float, labels: dict[str, str]) -> None:
        counter = self._counters[name]
        (counter.labels(**labels) if labels else counter).inc(amount)

    def gauge(self, name: str, value: float) -> None:
        self._gauges[name].set(value)

    def observe(self, name: str, seconds: float) -> None:
        self._histograms[name].observe(seconds)

    def text(self) -> bytes:
        """The exposition that `/metrics` serves."""
        return generate_latest(self._registry)
