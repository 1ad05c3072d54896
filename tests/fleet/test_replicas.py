"""Two processes on one Redis: whichever is asked answers, one acts, and when it goes the other goes on.

The stories follow one another: each begins with the holder that the one before has left.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import time

from bot.rollout.model import HoldReason, Phase
from tests.e2e.town import Run, mark_of
from tests.fleet.replicas import Fleet


def test_what_one_replica_is_asked_the_holder_does(fleet: Fleet) -> None:
    """Slack reaches only the process without the lease: it answers, and the holder starts, holds and rolls back."""
    fleet.town.play(_relayed(fleet))


async def _relayed(fleet: Fleet) -> None:
    town = fleet.town
    assert "No rollout" in await town.say("status")
    run = await town.start("payments", "v2 steps 10%:10m,100%:10m", channel="#payments")
    await run.reaches(10)
    assert "Held" in await town.say(f"hold {run.id} lunch")
    assert HoldReason.PERSON in (await fleet.rollout(run.id)).hold_reasons
    waits = []
    for turn in range(20):
        verb = ("resume", "hold")[turn % 2]
        request = await fleet.ask(verb, run.id)

        async def heard(request_id: str = request.id) -> bool:
            return request_id in (await fleet.rollout(run.id)).heard

        await fleet.eventually(heard, every_s=0.005)
        entry = (await fleet.rollout(run.id)).history[-1]
        assert entry.kind == {"hold": "hold", "resume": "unhold"}[verb], entry
        waits.append(1000 * (entry.at - request.at))
    fleet.figures["request_to_holder_p50_ms"] = round(statistics.median(waits), 1)
    fleet.figures["request_to_holder_max_ms"] = round(max(waits), 1)
    await fleet.ask("resume", run.id)
    assert "olling back" in await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


def test_a_clean_stop_hands_over_at_once(fleet: Fleet) -> None:
    """SIGTERM to the holder: the other has the lease before it would have asked for it, and acts on the rollout."""
    fleet.town.play(_handed_over(fleet))


async def _handed_over(fleet: Fleet) -> None:
    run = await _at_ten(fleet)
    began = time.monotonic()
    fleet.wired.part.send_signal(signal.SIGTERM)
    await fleet.until_holds(fleet.doored)
    fleet.figures["failover_after_sigterm_s"] = round(time.monotonic() - began, 2)

    async def ended() -> bool:
        return fleet.wired.part.returncode is not None

    await fleet.eventually(ended)
    assert await fleet.wired.part.stop_async() == 0, fleet.wired.part.stderr_tail
    await _acted_on(fleet, run)
    await fleet.start(fleet.wired)


def test_a_kill_moves_the_lease_when_it_runs_out(fleet: Fleet) -> None:
    """kill -9: the other goes on within the lease's time, the weight stays, nothing is said twice."""
    fleet.town.play(_killed(fleet))


async def _killed(fleet: Fleet) -> None:
    rollouts = (await fleet.store.rollouts.active()).rollouts
    (rollout,) = (one for one, _ in rollouts)
    run = Run(fleet.town, "payments", rollout.id, "#payments", "payments", rollout.created_at)
    began = time.monotonic()
    fleet.doored.part.send_signal(signal.SIGKILL)
    await fleet.until_holds(fleet.wired)
    fleet.figures["failover_after_kill_s"] = round(time.monotonic() - began, 2)
    await fleet.doored.part.stop_async(1.0)
    await _acted_on(fleet, run)
    assert await run.weights() == [10]
    await fleet.start(fleet.doored)
    await fleet.town.say(f"rollback {run.id}")
    await run.ended("RolledBack")
    told = await run.thread()
    assert sum("is at 10%" in text for text in told) == 1, told


def test_a_frozen_holder_that_wakes_with_a_raise_in_hand_cannot_raise(fleet: Fleet) -> None:
    """Its patch is on the wire when it is frozen, and arrives after another has taken over: the API server refuses it
    by the annotation's test, Redis refuses its record by the token, and it stops acting."""
    fleet.town.play(_frozen(fleet))


async def _frozen(fleet: Fleet) -> None:
    town, wired = fleet.town, fleet.wired
    run = await town.start("checkout", "v2 steps 10%:4s,100%:10m", channel="#checkout")
    await run.reaches(10)
    fleet.wire.arm()
    await asyncio.wait_for(fleet.wire.held.wait(), 30.0)
    wired.part.send_signal(signal.SIGSTOP)
    saved = (await fleet.rollout(run.id)).write
    assert saved is not None
    assert (saved.raising, saved.weight_percent) == (True, 100)
    await fleet.ask("hold", run.id)
    before = mark_of(await town.route("checkout"))["revision"]
    await fleet.until_holds(fleet.doored)
    await _fenced(fleet, run, before)
    await fleet.eventually(lambda: _held(fleet, run))

    refused = await fleet.patches(422)
    fleet.wire.let_go()

    async def turned_down() -> bool:
        return await fleet.patches(422) > refused

    await fleet.eventually(turned_down)
    wired.part.send_signal(signal.SIGCONT)

    async def given_up() -> bool:
        return wired.said("lease-lost")

    await fleet.eventually(given_up)
    await asyncio.sleep(2.0)
    assert await run.weights() == [10]
    record = await fleet.rollout(run.id)
    assert (record.weight_percent, record.write, record.phase) == (10, None, Phase.HOLDING)
    assert "olling back" in await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


def test_redis_away_is_told_and_roll_backs_work(fleet: Fleet) -> None:
    """Redis hangs: the channel is told once past it, a roll back is done by the route, and what was decided follows."""
    fleet.town.play(_redis_away(fleet))


async def _redis_away(fleet: Fleet) -> None:
    town = fleet.town
    run = await _at_ten(fleet)
    redis = town.world.redis
    assert redis is not None
    redis.part.send_signal(signal.SIGSTOP)
    try:
        await fleet.eventually(lambda: _notice(fleet, "cannot reach its Redis"), every_s=0.2)
        answer = await town.say("rollback all", wait_s=20.0)
        assert "is at 0" in answer, answer
    finally:
        redis.part.send_signal(signal.SIGCONT)
    await run.ended("RolledBack")
    await fleet.eventually(lambda: _notice(fleet, "reaches its Redis again"), every_s=0.2)

    async def ended() -> bool:
        return (await fleet.rollout(run.id)).phase is Phase.ROLLED_BACK

    await fleet.eventually(ended, every_s=0.2)
    assert await run.weights() == [10, 0]


def test_a_wiped_redis_loses_no_rollout(fleet: Fleet) -> None:
    """FLUSHALL while two processes run: the rollout is held as recovered, asked about, and rolled back by its id."""
    fleet.town.play(_wiped(fleet))


async def _wiped(fleet: Fleet) -> None:
    town = fleet.town
    run = await _at_ten(fleet)
    await fleet.wipe()

    async def recovered() -> bool:
        active = (await fleet.store.rollouts.active()).rollouts
        return [(one.id, one.hold_reasons) for one, _ in active] == [(run.id, frozenset({HoldReason.RECOVERED}))]

    await fleet.eventually(recovered, every_s=0.1)
    await fleet.eventually(lambda: _notice(fleet, "Resume to go on"), every_s=0.2)
    assert await run.weights() == [10]
    assert "olling back" in await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


def test_nothing_left_but_the_route_is_enough(fleet: Fleet) -> None:
    """Both processes killed and Redis empty: the next one rebuilds the rollout, asks, and its gates judge again."""
    fleet.town.play(_rebuilt(fleet))


async def _rebuilt(fleet: Fleet) -> None:
    town = fleet.town
    run = await _at_ten(fleet)
    before = mark_of(await town.route("payments"))["revision"]
    for replica in (fleet.wired, fleet.doored):
        replica.part.send_signal(signal.SIGKILL)
        await replica.part.stop_async(1.0)
    await fleet.wipe()
    await fleet.start(fleet.doored)
    await fleet.eventually(lambda: _notice(fleet, "rebuilt from the mark on its route"), every_s=0.2)
    await _fenced(fleet, run, before)

    async def judged() -> bool:
        look = (await fleet.rollout(run.id)).assessment
        return look is not None and look.passed

    await fleet.eventually(judged, every_s=0.2)
    record = await fleet.rollout(run.id)
    assert (record.weight_percent, record.hold_reasons) == (10, frozenset({HoldReason.RECOVERED}))
    assert record.target.canary.workloads == ("payments-v2",)
    assert await run.weights() == [10]
    assert "Resumed" in await town.say(f"resume {run.id}")
    assert "olling back" in await town.say(f"rollback {run.id}")
    await run.ended("RolledBack")


async def _at_ten(fleet: Fleet) -> Run:
    run = await fleet.town.start("payments", "v2 steps 10%:10m,100%:10m", channel="#payments")
    await run.reaches(10)
    await run.says("is at 10%")
    return run


async def _acted_on(fleet: Fleet, run: Run) -> None:
    """Wait until the holder has done what it was asked."""
    for verb in ("hold", "resume"):
        request = await fleet.ask(verb, run.id)

        async def heard(request_id: str = request.id) -> bool:
            return request_id in (await fleet.rollout(run.id)).heard

        await fleet.eventually(heard)


async def _fenced(fleet: Fleet, run: Run, before: int) -> None:
    """Wait until a new holder has marked the route anew, at the weight it had."""

    async def marked() -> bool:
        mark = mark_of(await fleet.town.route(run.route))
        assert mark["weight"] == 10
        return bool(mark["revision"] > before)

    await fleet.eventually(marked)


async def _held(fleet: Fleet, run: Run) -> bool:
    return HoldReason.PERSON in (await fleet.rollout(run.id)).hold_reasons


async def _notice(fleet: Fleet, words: str) -> bool:
    return any(words in str(message) for message in await fleet.town.clients.messages("#payments"))
