"""Telemetry of the process: structured log lines and Prometheus instruments."""

from typing import Any

from bot.adapters.instruments import Instruments
from bot.adapters.log import logger


class ProcessTelemetry:
    """Implements `Telemetry` over the configured log and one set of instruments."""

    def __init__(self, instruments: Instruments) -> None:
        self._instruments = instruments
        self._log: Any = logger()

    def line(self, event: str, **fields: object) -> None:
        self._log.info(event, **fields)

    def failed(self, event: str, error: BaseException, **fields: object) -> None:
        self._log.error(event, exc_info=error, **fields)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self._instruments.count(name, amount, labels)

    def observe(self, name: str, seconds: float) -> None:
        self._instruments.observe(name, seconds)

    def gauge(self, name: str, value: float) -> None:
        self._instruments.gauge(name, value)


class ShardTelemetry:
    """Implements `Telemetry` for one shard of several: lines name it, and gauges are summed over all of them.

    `gauges` holds what each shard said last, by name; the shards of a process share it.
    """

    def __init__(self, whole: ProcessTelemetry, shard: int, gauges: dict[str, dict[int, float]]) -> None:
        self._whole = whole
        self._shard = shard
        self._gauges = gauges

    def line(self, event: str, **fields: object) -> None:
        self._whole.line(event, shard=self._shard, **fields)

    def failed(self, event: str, error: BaseException, **fields: object) -> None:
        self._whole.failed(event, error, shard=self._shard, **fields)

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self._whole.count(name, amount, **labels)

    def observe(self, name: str, seconds: float) -> None:
        self._whole.observe(name, seconds)

    def gauge(self, name: str, value: float) -> None:
        said = self._gauges.setdefault(name, {})
        said[self._shard] = value
        self._whole.gauge(name, sum(said.values()))
