"""What a plan can expect of today's traffic."""

import asyncio

import pytest

from bot.analysis.expectation import Expectation, baseline_question, expect
from bot.analysis.statistics import requests_to_show
from bot.rollout.gate import parse_gate
from tests.unit.analysis.scene import HOST, PODS, Scene

ERRORS, SLOW, TWICE = parse_gate("error-rate<1%"), parse_gate("p99<250ms"), parse_gate("error-rate<2x")


def expected(scene: Scene) -> Expectation:
    scene.clock.advance(200)
    question = baseline_question(scene.rollout.target)
    return expect(scene.rollout, asyncio.run(scene.metrics.ask([question])))


def test_each_step_has_its_requests_and_the_time_to_show_twice_the_limit() -> None:
    """At 100 requests/s and 10% the canary has 10/s; alpha is split over gates and reporters."""
    found = expected(Scene(ERRORS, SLOW, PODS, rate=100, weight=10))
    assert found.per_s == pytest.approx(100, rel=0.02)
    assert list(found.steps) == pytest.approx([6000, 60_000], rel=0.02)
    needed = requests_to_show(0.02, 0.01, 0.0025)
    assert list(found.shows_s) == pytest.approx([needed / 10, needed / 100], rel=0.02)
    assert found.slow == ""


def test_a_step_too_short_to_show_anything_is_told() -> None:
    """One request a second at 10%: hours, while the step bakes ten minutes."""
    found = expected(Scene(ERRORS, rate=1, weight=10))
    assert "At 10% twice the limit shows in about" in found.slow


def test_a_relative_limit_needs_a_rate_to_be_relative_to() -> None:
    """Flawless today: unknown; 2% today: twice 4%, and half the say at half the weight."""
    scene = Scene(TWICE, weight=50)
    assert expected(scene).shows_s == (None, None)
    scene.metrics.behave(HOST, "v1", fail=0.02)
    scene.clock.advance(300)
    first, _ = expected(scene).shows_s
    assert first == pytest.approx(requests_to_show(0.08, 0.04, 0.005) / 25, rel=0.15)


def test_thresholds_alone_promise_no_time() -> None:
    """Nothing sequential, nothing said."""
    assert expected(Scene(PODS)).shows_s == (None, None)
