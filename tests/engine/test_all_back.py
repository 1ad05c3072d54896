"""`rollback all` on a bad night: what goes wrong with one service hides no other, in deed or in word."""

import pytest

from bot.errors import NotFound, Permanent, Transient
from bot.ports.mesh import Steered
from bot.rollout.effects import SetWeight
from bot.rollout.events import Request
from bot.rollout.model import Direction, Phase, Target
from bot.rollout.route import RouteState
from bot.usecases.rollback import rollback
from bot.usecases.start import StartAsk, start
from tests.engine.stage import ADA, Stage, stage

SERVICES = ("checkout", "orders", "payments")


async def all_running(made: Stage) -> dict[str, str]:
    """Three rollouts at 10%; id by service."""
    for service in SERVICES[:2]:
        await made.add_service(service)
    names = {}
    for service in SERVICES:
        answer = await start(made.desk, StartAsk(service, steps="10%:300s, 100%:10s"), ADA)
        assert answer.rollout is not None
        names[service] = answer.rollout.id
    await made.play(10, until=lambda: all(made.mesh.weights(service)[1] == 10 for service in SERVICES))
    return names


def break_the_patch(made: Stage, service: str, error: Exception) -> None:
    write = made.mesh.write

    async def writing(target: Target, change: SetWeight) -> RouteState:
        if target.service == service and change.direction is Direction.ZERO:
            raise error
        return await write(target, change)

    made.mesh.write = writing  # type: ignore[method-assign]


@pytest.mark.parametrize("error", [Permanent("the API server refuses it"), KeyError("spec")], ids=["refused", "broken"])
async def test_without_the_store_a_route_that_cannot_be_written_hides_no_other(error: Exception) -> None:
    """Each service has its own sentence: two at 0, one that could NOT be set, and why."""
    async with stage() as made:
        await all_running(made)
        break_the_patch(made, "checkout", error)
        made.store.down = True
        said = await rollback(made.desk, "all", ADA, "fire")
        assert [made.mesh.weights(service)[1] for service in SERVICES] == [10, 0, 0]
        assert len(said) == 4, said
        assert sum("is at 0" in sentence for sentence in said) == 2, said
        assert any("checkout" in sentence and "NOT" in sentence for sentence in said), said


async def test_a_request_that_the_store_refuses_is_done_by_its_route_and_the_others_by_their_holder() -> None:
    """One inbox cannot be written for good: that rollout's route is patched, all three end as RolledBack."""
    async with stage() as made:
        names = await all_running(made)
        putting = made.store.inbox.put

        async def put(request: Request) -> None:
            if request.rollout == names["checkout"]:
                raise Permanent("Redis refuses inbox_put: WRONGTYPE")
            await putting(request)

        made.store.inbox.put = put  # type: ignore[method-assign]
        said = await rollback(made.desk, "all", ADA, "fire")
        assert any("checkout" in sentence and "at 0" in sentence for sentence in said), said
        assert not any(
            "is lost" in letter.message.text for letter in await made.store.outbox.take(made.clock.now(), 50)
        )
        await made.play(3)
        for service in SERVICES:
            assert made.mesh.weights(service) == (100, 0)
            assert (await made.rollout(names[service])).phase is Phase.ROLLED_BACK


async def test_routes_that_cannot_be_read_are_told_beside_what_was_done() -> None:
    """The store refuses one request and the API server does not list: the others go back, that one is named."""
    async with stage() as made:
        names = await all_running(made)
        putting = made.store.inbox.put

        async def put(request: Request) -> None:
            if request.rollout == names["checkout"]:
                raise Permanent("Redis refuses inbox_put: WRONGTYPE")
            await putting(request)

        async def away(namespaces: object) -> tuple[Steered, ...]:
            raise Transient("the API server is away")

        made.store.inbox.put = put  # type: ignore[method-assign]
        made.mesh.steered = away  # type: ignore[method-assign]
        said = await rollback(made.desk, "all", ADA, "fire")
        assert any(names["checkout"] in sentence and "NOT" in sentence for sentence in said), said
        await made.play(3)
        assert [made.mesh.weights(service)[1] for service in SERVICES] == [10, 0, 0]


async def test_a_person_the_chat_does_not_know_is_told_so_for_each_service() -> None:
    """Without the store: nobody is let through by a chat that says there is no such person, and nothing is raised."""
    async with stage() as made:
        await all_running(made)

        async def nobody(user_id: str) -> object:
            raise NotFound(f"there is no user {user_id}")

        made.directory.person = nobody  # type: ignore[method-assign, assignment]
        made.store.down = True
        said = await rollback(made.desk, "all", ADA, "fire")
        assert sum("goes on" in sentence for sentence in said) == 3, said
        assert [made.mesh.weights(service)[1] for service in SERVICES] == [10, 10, 10]


async def test_a_roll_back_by_the_routes_is_found_and_told_when_the_store_is_back() -> None:
    """The holder reads the mark, ends the record as RolledBack with the person's reason, and says so in the channel."""
    async with stage() as made:
        names = await all_running(made)
        made.store.down = True
        await made.play(3)
        await rollback(made.desk, names["payments"], ADA, "pager is red")
        assert made.mesh.weights("payments") == (100, 0)
        assert made.mesh.weights("orders") == (90, 10)
        await made.play(3)
        made.store.down = False
        await made.play(8)
        rollout = await made.rollout(names["payments"])
        assert rollout.phase is Phase.ROLLED_BACK
        assert "pager is red" in rollout.reason
        assert any("Rolled back: payments" in text and "pager is red" in text for text in made.chat.texts)
        assert (await made.rollout(names["orders"])).phase is Phase.PROGRESSING


async def test_a_roll_back_of_a_route_whose_record_is_lost_is_told_and_recorded_here() -> None:
    """No holder will ever find it: the channel hears who rolled what back and why, and so does the audit."""
    async with stage() as made:
        names = await all_running(made)
        await made.engine.stop()
        del made.store.rollouts.records[names["payments"]]
        said = await rollback(made.desk, names["payments"], ADA, "pager is red")
        assert any("is at 0" in sentence for sentence in said), said
        letters = await made.store.outbox.take(made.clock.now() + 60.0, 50)
        told = [letter.message for letter in letters if letter.rollout == names["payments"]]
        assert any("payments" in one.text and "pager is red" in one.text and one.channel for one in told), told
        lines = [line for line in made.store.audits if line.rollout == names["payments"]]
        assert (lines[-1].weight_percent, lines[-1].by) == (0, ADA.user_id)
        assert "pager is red" in lines[-1].text
