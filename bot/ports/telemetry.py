"""What the process says of itself: log lines and counters."""

from typing import Protocol


class Telemetry(Protocol):
    """Never raises and never blocks. Fields and labels hold no tokens and no message bodies."""

    def line(self, event: str, **fields: object) -> None:
        """One canonical log line."""

    def failed(self, event: str, error: BaseException, **fields: object) -> None:
        """A log line with its traceback."""

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""

    def observe(self, name: str, seconds: float) -> None:
        """Add to a histogram of durations."""

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge."""
