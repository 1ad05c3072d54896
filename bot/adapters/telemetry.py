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
