"""Metrics: questions in PromQL, answers as series of samples."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from bot.analysis.samples import Answer, Query
from bot.errors import CannotMeasure


class Metrics(Protocol):
    """Asks questions together. One failing question does not spoil the others."""

    async def ask(self, queries: Sequence[Query]) -> Mapping[Query, Answer | CannotMeasure]: ...

    async def ready(self) -> str:
        """Version of the server; raises CannotMeasure when it does not answer."""
