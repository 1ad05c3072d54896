"""Many rollouts at once: services are asked for sums, and a canary that turns slow is still looked at in detail."""

import pytest

from bot.engine import measure
from bot.rollout.model import Phase
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, HOST, stage
from tests.unit.analysis.test_sums import Summing


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """One rollout is many."""
    monkeypatch.setattr(measure, "SUMMED_FROM", 1)
    monkeypatch.setattr(measure, "SUMMED_BELOW", 1)


async def test_a_good_canary_is_promoted_on_sums_alone() -> None:
    """The whole way up; no question for samples of requests or latencies."""
    async with stage() as made:
        made.metrics.__class__ = Summing
        answer = await start(made.desk, StartAsk("payments", steps="10%:10s, 50%:10s, 100%:10s"), ADA)
        assert answer.rollout is not None
        await made.play(5.0)
        await made.play(150.0, until=lambda: made.engine.active == 0)
        ended = await made.rollout(answer.rollout.id)
        assert ended.phase is Phase.PROMOTED, ended.reason
        asked = [query.promql for query in made.metrics.asked]
        assert [text for text in asked if text.startswith("sum by (reporter")]
        samples = [text for text in asked if text.startswith("istio_")]
        assert not [text for text in samples if not text.endswith(("[3s]", "[300s]"))], (
            "the fake's own, and preflight's"
        )


async def test_a_slow_canary_goes_back_and_is_looked_at_in_samples() -> None:
    """Its latencies are asked for with all buckets and pods, for what the slowness is put down to."""
    async with stage() as made:
        made.metrics.__class__ = Summing
        answer = await start(made.desk, StartAsk("payments", steps="50%:4h, 100%:4h"), ADA)
        assert answer.rollout is not None
        await made.play(25.0)
        made.metrics.behave(HOST, "v2", slow=0.5, slow_ms=2000.0)
        await made.play(60.0, until=lambda: made.engine.active == 0)
        ended = await made.rollout(answer.rollout.id)
        assert ended.phase is Phase.ROLLED_BACK, ended.reason
        assert [query for query in made.metrics.asked if query.promql.startswith("istio_request_duration")]
