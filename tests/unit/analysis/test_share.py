"""The observed share: when it can be told, when not and why, and what a share that does not arrive is put down to."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from bot.analysis.assessment import assess, questions
from bot.analysis.samples import Answer, Query, Series
from bot.analysis.share import converged, rejected
from bot.errors import CannotMeasure
from bot.rollout.gate import Assessment, Share
from tests.unit.analysis.scene import ERROR_RATE, HOST, Scene, target

LEGACY = "route legacy of the same VirtualService"


def look(scene: Scene, after_s: float, **istiod: Answer | CannotMeasure) -> Assessment:
    """A look, with istiod's answers by `converged` and `rejected` where they are asked for."""
    scene.clock.advance(after_s)
    now = scene.clock.now()
    asked = questions(scene.rollout, now)
    answers: dict[Query, Answer | CannotMeasure] = dict(asyncio.run(scene.metrics.ask(asked)))
    told = {"pilot_proxy_convergence_time": "converged", "pilot_total_xds_rejects": "rejected"}
    for query in asked:
        name = next((name for metric, name in told.items() if metric in query.promql), "")
        if name in istiod:
            answers[query] = istiod[name]
    return assess(scene.rollout, now, answers, scene.canary_pods, scene.stable_pods)


def stale(**istiod: Answer | CannotMeasure) -> Share:
    """The share of a weight that does not arrive, at the look after the one that saw that."""
    scene = Scene(ERROR_RATE, weight=50)
    scene.metrics.weight(HOST, 0)
    first = look(scene, 10)
    assert first.share.arrived is False
    scene.rollout = scene.rollout.with_(assessment=first)
    return look(scene, 5, **istiod).share


def vector(label: str, values: Mapping[str, float]) -> Answer:
    return Answer(tuple(Series({label: name}, ((0.0, value),)) for name, value in values.items()))


def test_istiod_is_asked_only_while_a_weight_does_not_arrive() -> None:
    """A healthy rollout costs no extra question."""
    scene = Scene(ERROR_RATE, weight=50)
    first = look(scene, 10)
    assert first.share.arrived is True
    scene.rollout = scene.rollout.with_(assessment=first)
    assert not [query for query in questions(scene.rollout, scene.clock.now()) if "pilot" in query.promql]
    scene.rollout = scene.rollout.with_(assessment=replace(first, share=Share(0.0, 500, False)))
    assert {converged(10), rejected(10)} <= set(questions(scene.rollout, scene.clock.now()))


@pytest.mark.parametrize(
    ("pushes", "rejects", "words"),
    [
        ({"1": 0, "10": 0, "+Inf": 0}, {}, "Likely stale proxies: istiod has not finished a push"),
        ({"1": 2, "10": 3, "+Inf": 8}, {}, "Likely stale proxies: 5 of 8 pushes took longer than 10 s"),
        ({"1": 8, "10": 8, "+Inf": 8}, {"rds": 3}, "Likely stale proxies: proxies refused configuration"),
        ({"1": 8, "10": 8, "+Inf": 8}, {"rds": 0}, "Stale proxies are not likely: istiod's 8 pushes"),
        ({}, {}, "istiod's own metrics are not in Prometheus"),
    ],
    ids=["no push", "slow pushes", "rejects", "all in time", "no istiod metrics"],
)
def test_what_istiod_says_names_the_likely_cause(
    pushes: Mapping[str, float], rejects: Mapping[str, float], words: str
) -> None:
    """Slow or missing pushes and rejects name stale proxies; fast ones take the blame from them."""
    share = stale(converged=vector("le", pushes), rejected=vector("type", rejects))
    assert share.arrived is False
    assert words in share.note, share.note


def test_without_istiods_metrics_the_weight_has_still_not_arrived() -> None:
    """The cause is not known, the fact is."""
    share = stale(converged=CannotMeasure("down"), rejected=CannotMeasure("down"))
    assert (share.arrived, "to tell" in share.note) == (False, True)


def test_other_ways_to_the_host_make_a_differing_share_mean_nothing() -> None:
    """Requests of a header-matched route go to stable by design: no hold, and the reason is said."""
    scene = Scene(ERROR_RATE, weight=50, of=target(other_ways=(LEGACY,)))
    scene.metrics.weight(HOST, 20)
    share = look(scene, 20).share
    assert (share.arrived, share.note) == (None, f"Requests reach the host by other ways as well: {LEGACY}.")
    scene.metrics.weight(HOST, 50)
    assert look(scene, 30).share.arrived is True


@pytest.mark.parametrize(("rate", "words"), [(0.0, "no requests"), (0.1, "20 of the canary would show it, 0.5 were")])
def test_thin_traffic_says_so(rate: float, words: str) -> None:
    """Too few requests for the tolerance are told with how many there should have been."""
    scene = Scene(ERROR_RATE, weight=10, rate=rate)
    share = look(scene, 60).share
    assert share.arrived is None
    assert words in share.note, share.note
