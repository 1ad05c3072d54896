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
_BEHIND = {
    "": re.compile(r"\[\d+s(?::\d+s)?\]"),
    "count(": re.compile(r"\)"),
    "max(timestamp(": re.compile(r"\)\)(?:\[\d+s:\d+s\])?"),
    "max(count_over_time(": re.compile(r"\[\d+s\]\)\)"),
}
"""What may stand before a selector, and with it behind it."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What questions have in common that can be merged.

    `before` and `behind` are the PromQL around the selector of `metric`, `at` is epoch seconds or None for the server's
    now. What stands before begins with an aggregation, or is nothing.
    """

    before: str
    metric: str
    behind: str
    at: float | None

    @property
    def aggregated(self) -> bool:
        """The answer alone has no labels; merged it has the service."""
        return bool(self.before)


def shape(query: Query) -> tuple[Shape, tuple[str, ...]] | None:
    """The shape of a question and the services it asks about, None when it has to be asked as it is."""
    found = _SELECTOR.search(query.promql)
    if found is None:
        return None
    before, behind = query.promql[: found.start()], query.promql[found.end() :]
    services = (found["one"],) if found["one"] else tuple(found["several"].replace("\\\\.", ".").split("|"))
    allowed = _BEHIND.get(before)
    if allowed is None or not allowed.fullmatch(behind) or not all(services) or (before and len(services) > 1):
        return None
    return Shape(before, found.group(1), behind, query.at), services


def merged(common: Shape, services: Iterable[str]) -> Query:
    """The question of this shape about all these services."""
    before = common.before.replace("(", f" by ({LABEL}) (", 1)
    return Query(f"{before}{selector(common.metric, {LABEL: tuple(services)})}{common.behind}", common.at)


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
    if common.aggregated:
        rows = tuple(Series({}, row.points) for row in rows)
    return Answer(rows, answer.server_time, answer.warnings)
