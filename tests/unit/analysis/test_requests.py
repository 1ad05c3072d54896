"""Every request is sorted as the table of the gates says: outcome, side, and those that name no side."""

from dataclasses import replace

import pytest

from bot.analysis.requests import Outcome, Tally, Whose, attribute, hosts, outcome, separable, whose
from bot.rollout.model import Destination, Side
from tests.unit.analysis.scene import HOST, target


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"response_code": "200", "response_flags": "-"}, Outcome.OK),
        ({"response_code": "404"}, Outcome.OK),
        ({"response_code": "429"}, Outcome.OK),
        ({"response_code": "500"}, Outcome.ERROR),
        ({"response_code": "503", "response_flags": "UF,URX"}, Outcome.ERROR),
        ({"response_code": "504", "response_flags": "UT"}, Outcome.ERROR),
        ({"response_code": "0", "response_flags": "-"}, Outcome.ERROR),
        ({"response_code": "0", "response_flags": "UC"}, Outcome.ERROR),
        ({"response_code": "0", "response_flags": "DC"}, Outcome.ABORTED),
        ({"response_code": "0", "response_flags": "UT,DC"}, Outcome.ABORTED),
        ({"response_code": "200", "response_flags": "DC"}, Outcome.OK),
        ({"response_code": "500", "response_flags": "DC"}, Outcome.ERROR),
        ({"response_code": "200", "request_protocol": "http", "grpc_response_status": "13"}, Outcome.OK),
        *(
            ({"response_code": "200", "request_protocol": "grpc", "grpc_response_status": str(status)}, Outcome.ERROR)
            for status in (2, 4, 8, 12, 13, 14, 15)
        ),
        *(
            ({"response_code": "200", "request_protocol": "grpc", "grpc_response_status": str(status)}, Outcome.OK)
            for status in (0, 3, 5, 6, 7, 9, 10, 11, 16)
        ),
        ({"response_code": "200", "request_protocol": "grpc", "grpc_response_status": "1"}, Outcome.ABORTED),
    ],
)
def test_outcomes(labels: dict[str, str], expected: Outcome) -> None:
    """5xx, code 0 unless the client went away, and gRPC server faults behind HTTP 200 are errors, no more."""
    assert outcome(labels) is expected


@pytest.mark.parametrize(
    ("workload", "version", "expected"),
    [
        ("payments-v2", "v2", Whose.CANARY),
        ("payments-v2", "unknown", Whose.CANARY),
        ("unknown", "v2", Whose.CANARY),
        ("payments-v1", "v1", Whose.STABLE),
        ("payments-v1", "v2", Whose.STABLE),
        ("payments-v0", "v0", Whose.OTHER),
        ("unknown", "v0", Whose.OTHER),
        ("unknown", "unknown", Whose.UNKNOWN),
        ("", "", Whose.UNKNOWN),
    ],
)
def test_sides_of_subsets(workload: str, version: str, expected: Whose) -> None:
    """The workload decides before the version, and a series with neither is nobody's."""
    labels = {"destination_service": HOST, "destination_workload": workload, "destination_version": version}
    assert whose(target(), labels) is expected


def test_sides_with_hosts_of_their_own_are_told_apart_even_without_workload() -> None:
    """Where each side is a service, a failed connection still names the host."""
    other = "payments-canary.shop.svc.cluster.local"
    two = target(canary=Side("canary", Destination("payments-canary"), ("payments-canary",), "v2"))
    assert hosts(two) == (HOST, other)
    lost = {"destination_workload": "unknown", "destination_version": "unknown"}
    assert whose(two, {**lost, "destination_service": other}) is Whose.CANARY
    assert whose(two, {**lost, "destination_service": HOST}) is Whose.STABLE


def test_subsets_of_one_workload_are_told_apart_by_version_or_not_at_all() -> None:
    """A workload on both sides says nothing; without different versions nothing does."""
    one = target()
    shared = replace(one, canary=replace(one.canary, workloads=("payments-v1",)))
    labels = {"destination_service": HOST, "destination_workload": "payments-v1", "destination_version": "v2"}
    assert whose(shared, labels) is Whose.CANARY
    assert separable(shared)
    assert not separable(replace(shared, canary=replace(shared.canary, version="v1")))


def given(canary: float, stable: float, unknown: float, share: float) -> float:
    tallies = {Whose.CANARY: Tally(canary), Whose.STABLE: Tally(stable), Whose.UNKNOWN: Tally(0, unknown)}
    found, moved = attribute(tallies, share)
    assert sum(tally.all for tally in found.values()) == canary + stable + unknown
    return moved


@pytest.mark.parametrize(
    ("canary", "stable", "unknown", "share", "moved"),
    [
        (0, 900, 100, 0.10, 100),
        (0, 950, 50, 0.05, 50),
        (0, 0, 40, 1.00, 40),
        (50, 900, 50, 0.10, 50),
        (100, 895, 5, 0.10, 0),
        (100, 600, 300, 0.10, 0),
        (0, 400, 600, 0.10, 0),
        (0, 9, 1, 0.10, 0),
        (0, 1000, 0, 0.10, 0),
    ],
)
def test_requests_without_a_side_are_the_canarys_only_when_nothing_else_explains_them(
    canary: float, stable: float, unknown: float, share: float, moved: float
) -> None:
    """A crashing canary's share is missing exactly them; stable's own failures, or too few requests, are not moved."""
    assert given(canary, stable, unknown, share) == moved
