"""One question for many services: what differs only in `destination_service` is asked once and told apart by label.

Only selectors that this room writes itself, over names as Kubernetes allows them, are merged; everything else is left
as it is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from bot.analysis.promql import selector
from bot.analysis.samples import Answer, Query, Series

LABEL = "destination_service"

_SELECTOR = re.compile(
    r'(\w+)\{destination_service(?:="(?P<one>[A-Za-z0-9.-]+)"|=~"(?P<several>(?:[A-Za-z0-9-]|\\\\\.|\|)+)")\}'
)
_RANGE = re.compile(r"\[\d+s(?::\d+s)?\]")
_MAX_OF_TIME = "max(timestamp("


@dataclass(frozen=True, slots=True)
class Shape:
    """What questions have in common that can be merged.

    `metric` and `reach` (the brackets behind the selector) are PromQL, `at` is epoch seconds or None for the server's
    now; `moments` says that the newest sample's time is asked for, and not the samples.
    """

    metric: str
    reach: str
    at: float | None
    moments: bool = False


def shape(query: Query) -> tuple[Shape, tuple[str, ...]] | None:
    """The shape of a question and the services it asks about, None when it has to be asked as it is."""
    text = query.promql
    moments = text.startswith(_MAX_OF_TIME)
    found = _SELECTOR.match(text, len(_MAX_OF_TIME) if moments else 0)
    if found is None:
        return None
    services = (found["one"],) if found["one"] else tuple(found["several"].replace("\\\\.", ".").split("|"))
    rest = text[found.end() :]
    if moments:
        if not rest.startswith("))") or len(services) > 1:
            return None
        rest = rest[2:]
    if not _RANGE.fullmatch(rest) or not all(services):
        return None
    return Shape(found.group(1), rest, query.at, moments), services


def merged(common: Shape, services: Iterable[str]) -> Query:
    """The question of this shape about all these services."""
    series = selector(common.metric, {LABEL: tuple(services)})
    if common.moments:
        series = f"max by ({LABEL}) (timestamp({series}))"
    return Query(f"{series}{common.reach}", common.at)


def by_service(answer: Answer) -> Mapping[str, tuple[Series, ...]]:
    """Series of a merged answer by the service that they are of."""
    found: dict[str, list[Series]] = {}
    for series in answer.series:
        found.setdefault(series.labels.get(LABEL, ""), []).append(series)
    return {service: tuple(rows) for service, rows in found.items()}


def part(
    common: Shape, services: Sequence[str], answer: Answer, sorted_series: Mapping[str, tuple[Series, ...]]
) -> Answer:
    """What the question about these services alone would have answered."""
    rows = tuple(row for service in services for row in sorted_series.get(service, ()))
    if common.moments:
        rows = tuple(Series({}, row.points) for row in rows)
    return Answer(rows, answer.server_time, answer.warnings)
