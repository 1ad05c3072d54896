"""Questions in PromQL and their answers as series of samples."""

from collections.abc import Mapping

from bot.values import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """An instant query; a raw range selector (`x{...}[60s]`) answers with many points per series.

    `at` is the evaluation time in epoch seconds, None for the server's now.
    """

    promql: str
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Series:
    """One series: labels without `__name__` when the query dropped it, points (epoch seconds, value), oldest first."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's answer; `server_time` is its clock when it answered (HTTP Date or time()), None when unknown."""

    series: tuple[Series, ...]
    server_time: float | None = None
    warnings: tuple[str, ...] = ()
