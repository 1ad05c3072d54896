"""Telemetry in memory: lines and counts to look at."""

from collections import Counter


class FakeTelemetry:
    """Implements `Telemetry`. `failures` keeps what was reported with an error."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []
        self.failures: list[tuple[str, BaseException]] = []
        self.counts: Counter[str] = Counter()
        self.gauges: dict[str, float] = {}

    def line(self, event: str, **fields: object) -> None:
        self.lines.append((event, fields))

    def failed(self, event: str, error: BaseException, **fields: object) -> None:
        self.failures.append((event, error))

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name] += int(amount)

    def observe(self, name: str, seconds: float) -> None:
        self.counts[f"{name}:observed"] += 1

    def gauge(self, name: str, value: float) -> None:
        self.gauges[name] = value

    def events(self, name: str) -> list[dict[str, object]]:
        """Fields of all lines of an event."""
        return [fields for event, fields in self.lines if event == name]
