"""An earlier route that takes everything, however it is spelled."""

from typing import Any

import pytest

from bot.adapters.mesh import preflight, virtualservice
from bot.adapters.mesh.choosing import Steerable
from bot.ports.mesh import Severity


def judged(match: dict[str, Any]) -> Severity:
    """What is said of a catch-all route behind one with this match condition."""
    route = [{"destination": {"host": "payments", "subset": "v1"}}]
    manifest = {
        "metadata": {"name": "payments", "namespace": "shop"},
        "spec": {"hosts": ["payments"], "http": [{"match": [match], "route": route}, {"name": "main", "route": route}]},
    }
    return preflight.unshadowed(Steerable(manifest, virtualservice.places(manifest)[1], manifest)).severity


@pytest.mark.parametrize(
    "match",
    [
        {},
        {"name": "all"},
        {"uri": {"prefix": "/"}},
        {"uri": {"prefix": ""}},
        {"uri": {"regex": ".*"}},
        {"uri": {"regex": "/.*"}},
        {"uri": {"regex": "^/.*$"}},
        {"uri": {}},
        {"headers": {}},
        {"uri": {"prefix": "/"}, "headers": {}, "statPrefix": "all"},
    ],
)
def test_a_route_that_takes_everything_shadows_those_behind_it(match: dict[str, Any]) -> None:
    """Nothing would reach the steered route, so a start is refused."""
    assert judged(match) is Severity.REFUSE


@pytest.mark.parametrize(
    "match",
    [
        {"uri": {"prefix": "/v1"}},
        {"uri": {"regex": "/v1/.*"}},
        {"uri": {"exact": "/"}},
        {"headers": {"x-canary": {"exact": "always"}}},
        {"method": {"exact": "GET"}},
        {"port": 8080},
        {"sourceLabels": {"app": "loadgen"}},
        {"withoutHeaders": {"x-canary": {}}},
    ],
)
def test_a_narrower_route_leaves_something(match: dict[str, Any]) -> None:
    """A start is allowed: the rest of the requests reach the steered route."""
    assert judged(match) is Severity.OK
