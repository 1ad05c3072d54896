"""One question for many services: what differs only in `destination_service` is asked once and told apart by label.

Only selectors that this room writes itself, over names as Kubernetes allows them, are merged; everything else is left
as it is.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from bot.analysis.samples import Answer, Query, Series
from bot.values import dataclass

LABEL = "destination_service"

_NAMES = re.compile(LABEL + r'(?:="(?P<one>[A-Za-z0-9.-]+)"|=~"(?P<several>(?:[A-Za-z0-9-]|\\\\\.|\|)+)")(?=[,}])')
_DOT = r"\\."
"""A dot in a pattern in a string: its backslash is written twice."""
_SERIES = r"\w+\{\0(?:,le=~\"[0-9.+|\\\\eInf-]+\")?\}"
_RANGE = r"\[\d+s(?::\d+s)?\]"
_SUMS = (
    r"sum by \([\w,]+\) \(\(\(S - S offset \d+s\) >= 0\)"
    r" or \(S and on \(job, instance\) \(up offset \d+s == 1\)\)\)"
    rf" or max by \({LABEL}\) \(timestamp\(S\)\)"
)
_LABELLED = re.compile(f"S{_RANGE}|{_SUMS}".replace("S", _SERIES))
"""Questions whose answers name the service of each series by themselves."""
_NUMBERS = re.compile(
    rf"(?:count|max)\((?:S|S and on \(job, instance\) up|timestamp\(S\)|count_over_time\(S{_RANGE}\))\)"
    rf"(?:{_RANGE})?".replace("S", _SERIES)
)
"""Questions for one number, whose answers do so only when they are asked by service."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What questions have in common that can be merged.

    `pieces` is the PromQL around the names of the services, `at` is epoch seconds or None for the server's now.
    """

    pieces: tuple[str, ...]
    at: float | None

    @property
    def aggregated(self) -> bool:
        """The answer alone has no labels; merged it has the service."""
        return bool(_allowed(self.pieces))


def shape(query: Query) -> tuple[Shape, tuple[str, ...]] | None:
    """The shape of a question and the services it asks about, None when it has to be asked as it is."""
    found = _NAMES.search(query.promql)
    if found is None:
        return None
    pieces = tuple(query.promql.split(found.group()))
    services = (found["one"],) if found["one"] else tuple(found["several"].replace(_DOT, ".").split("|"))
    aggregated = _allowed(pieces)
    if aggregated is None or not all(services) or (aggregated and len(services) > 1):
        return None
    return Shape(pieces, query.at), services


@lru_cache(maxsize=1024)
def _allowed(pieces: tuple[str, ...]) -> bool | None:
    """True for one number, False for series that name their service, None for what this room does not write."""
    text = "\0".join(pieces)
    if _LABELLED.fullmatch(text):
        return False
    return True if len(pieces) == 2 and _NUMBERS.fullmatch(text) else None


def merged(common: Shape, services: Iterable[str]) -> Query:
    """The question of this shape about all these services, named as `shape` names them: nothing in such a name but its
    dots means something in a pattern."""
    names = sorted(set(services))
    matcher = f'="{names[0]}"' if len(names) == 1 else f'=~"{"|".join(names).replace(".", _DOT)}"'
    first, *rest = common.pieces
    if common.aggregated:
        first = first.replace("(", f" by ({LABEL}) (", 1)
    return Query(f"{LABEL}{matcher}".join((first, *rest)), common.at)


def by_service(answer: Answer) -> Mapping[str, Sequence[Series]]:
    """Series of a merged answer by the service that they are of."""
    found: defaultdict[str, list[Series]] = defaultdict(list)
    for series in answer.series:
        found[series.labels.get(LABEL, "")].append(series)
    return found


def part(
    common: Shape, services: Sequence[str], answer: Answer, sorted_series: Mapping[str, Sequence[Series]]
) -> Answer:
    """What the question about these services alone would have answered."""
    if len(services) == 1 and not common.aggregated:
        rows = tuple(sorted_series.get(services[0], ()))
    else:
        rows = tuple(row for service in services for row in sorted_series.get(service, ()))
    if common.aggregated:
        rows = tuple(Series({}, row.points) for row in rows)
    return Answer(rows, answer.server_time, answer.warnings)
