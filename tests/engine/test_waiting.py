"""What waits for a moment or for a person: scheduled starts, approvals, freezes."""

import pytest

from bot.catalog import load
from bot.errors import Transient
from bot.ports.mesh import Finding, Severity
from bot.rollout.model import HoldReason, Phase
from bot.usecases import freezing
from bot.usecases.requests import put
from bot.usecases.rollback import rollback
from bot.usecases.start import StartAsk, start
from bot.usecases.who import Who
from tests.engine.stage import ADA, CATALOG, GRACE, HOST, Stage, stage
from tests.engine.test_stories import started

LINUS = Who("U0LINUS", "C1", name="Linus", via="button")
ASKS = "10%:4s, 50%:4s:approve, 100%:4s"
IN_TWO_MINUTES = 120.0


async def scheduled(made: Stage, in_s: float = IN_TWO_MINUTES) -> str:
    """A start of payments that is due later; its id."""
    answer = await start(made.desk, StartAsk("payments", steps="10%:4s, 100%:4s", at=made.clock.now() + in_s), ADA)
    assert answer.rollout is not None
    return answer.rollout.id


async def asked(made: Stage, **approval: object) -> str:
    """A rollout of payments that waits at 10% for approval of 50%, under these rules; its id."""
    rules = ", ".join(f"{key}: {value}" for key, value in approval.items())
    made.catalog = load(CATALOG.replace("check_every: 1s}", f"check_every: 1s, approval: {{{rules}}}}}"))
    name = await started(made, ASKS)
    await made.play(20, until=lambda: made.store.rollouts.records[name].rollout.phase is Phase.AWAITING_APPROVAL)
    assert (await made.rollout(name)).phase is Phase.AWAITING_APPROVAL
    return name


def whispered(made: Stage) -> list[str]:
    return [said.text.partition(" ")[2] for said in made.chat.whispers]


async def test_a_scheduled_start_begins_when_it_is_due_and_not_before() -> None:
    """Nothing is touched until its moment; then it runs like any other."""
    async with stage() as made:
        name = await scheduled(made)
        await made.play(IN_TWO_MINUTES - 5)
        assert ((await made.rollout(name)).phase, made.weights()) == (Phase.SCHEDULED, [])
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert ((await made.rollout(name)).phase, made.weights()) == (Phase.PROMOTED, [10, 100])


async def test_a_scheduled_start_does_its_preflight_again_and_is_cancelled_with_the_reason() -> None:
    """What has come up since it was scheduled refuses it: Cancelled, nothing touched, and the channel reads why."""
    async with stage() as made:
        name = await scheduled(made)
        text = "Argo Rollouts owns this route."
        made.mesh.findings["payments"] = (Finding("owner", Severity.REFUSE, text, "Take it out there first."),)
        await made.play(IN_TWO_MINUTES + 10)
        rollout = await made.rollout(name)
        assert (rollout.phase, made.weights()) == (Phase.CANCELLED, [])
        assert f"{text} Take it out there first." in rollout.reason
        assert any(text in said for said in made.chat.texts), made.chat.texts


async def test_a_scheduled_start_does_not_outlive_the_leave_of_the_catalog() -> None:
    """A service that the catalog no longer names, in a namespace that it does not list, is not begun."""
    async with stage() as made:
        name = await scheduled(made)
        made.catalog = load("namespaces: [other]\ndefaults: {channel: '#deploys', check_every: 1s}\n")
        await made.play(IN_TWO_MINUTES + 10)
        rollout = await made.rollout(name)
        assert (rollout.phase, made.weights()) == (Phase.CANCELLED, [])
        assert "no longer allows" in rollout.reason


async def test_a_scheduled_start_waits_while_its_preflight_cannot_be_made() -> None:
    """The API server is away when it is due: it is neither cancelled nor begun blindly, and begins when it can."""
    async with stage() as made:
        name = await scheduled(made)
        made.mesh.fail("transient", on="survey", times=4)
        await made.play(IN_TWO_MINUTES + 12)
        assert ((await made.rollout(name)).phase, made.weights()) == (Phase.SCHEDULED, [])
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert (await made.rollout(name)).phase is Phase.PROMOTED


async def test_a_freeze_in_force_when_a_scheduled_start_is_due_is_waited_out() -> None:
    """It begins, holds at 0 under the freeze, and goes up by itself when the freeze ends."""
    async with stage() as made:
        name = await scheduled(made)
        await freezing.freeze(made.desk, "all", IN_TWO_MINUTES + 60, "audit", GRACE)
        await made.play(IN_TWO_MINUTES + 30)
        rollout = await made.rollout(name)
        assert (rollout.phase, rollout.hold_reasons, made.weights()) == (
            Phase.HOLDING,
            frozenset({HoldReason.FREEZE}),
            [],
        )
        await made.play(90, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert ((await made.rollout(name)).phase, made.weights()) == (Phase.PROMOTED, [10, 100])


async def test_a_scheduled_start_outlives_the_process() -> None:
    """Another process takes over before it is due: it begins at its moment all the same."""
    async with stage() as made:
        name = await scheduled(made)
        await made.play(30)
        await made.engine.stop()
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(IN_TWO_MINUTES)
        assert (await made.rollout(name)).phase is Phase.PROMOTED


async def test_a_scheduled_start_can_be_cancelled_and_never_begins() -> None:
    """Its moment passes and nothing happens; the person was answered."""
    async with stage() as made:
        name = await scheduled(made)
        await made.play(5)
        await put(made.desk, "cancel", name, ADA)
        await made.play(IN_TWO_MINUTES + 10)
        assert ((await made.rollout(name)).phase, made.weights()) == (Phase.CANCELLED, [])
        assert whispered(made) == ["Cancelled; no traffic was moved."]


@pytest.mark.parametrize(
    ("on_expiry", "phase", "weight"), [("roll_back", Phase.ROLLED_BACK, 0), ("hold", Phase.HOLDING, 10)]
)
async def test_an_approval_reminds_at_half_and_at_90_percent_and_expires_into_its_default(
    on_expiry: str, phase: Phase, weight: int
) -> None:
    """100 s to answer: a reminder after 50 s and after 90 s, and at the end what silence means."""
    async with stage() as made:
        name = await asked(made, expires="100s", on_expiry=on_expiry)
        approval = (await made.rollout(name)).approval
        assert approval is not None
        reminders = []
        for after_s in (45, 55, 85, 95):
            await made.play(approval.asked_at + after_s - made.clock.now())
            reminders.append(sum("Still waiting" in text for text in made.chat.texts))
        assert reminders == [0, 1, 1, 2]
        await made.play(10)
        rollout = await made.rollout(name)
        assert (rollout.phase, made.mesh.weights("payments")[1]) == (phase, weight)
        assert any("Expired after" in text for text in made.chat.texts), made.chat.texts


async def test_after_an_expiry_into_hold_resume_asks_again() -> None:
    """The question is put anew; an approval of it goes on."""
    async with stage() as made:
        name = await asked(made, expires="20s", on_expiry="hold")
        await made.play(25)
        await put(made.desk, "resume", name, GRACE)
        await made.play(5)
        assert (await made.rollout(name)).phase is Phase.AWAITING_APPROVAL
        await put(made.desk, "approve", name, GRACE)
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert (await made.rollout(name)).phase is Phase.PROMOTED


async def test_an_approval_that_expires_does_not_go_to_a_stable_without_pods() -> None:
    """Silence means roll back, but nothing could take over: it holds and pages instead."""
    async with stage() as made:
        name = await asked(made, expires="20s", on_expiry="roll_back")
        made.cluster.change("payments-v1", ready=False)
        await made.play(30)
        rollout = await made.rollout(name)
        assert made.mesh.weights("payments") == (90, 10)
        assert HoldReason.STABLE_UNHEALTHY in rollout.hold_reasons
        assert any("stable" in page.summary for page in made.pager.pages), made.pager.pages


async def test_a_quorum_of_two_takes_two_people() -> None:
    """One approval, and the same one twice, is not enough; each click is answered."""
    async with stage() as made:
        name = await asked(made, quorum=2)
        await put(made.desk, "approve", name, GRACE)
        await put(made.desk, "approve", name, GRACE)
        await made.play(10)
        assert made.weights() == [10]
        assert [text.split(":")[0].split(",")[0] for text in whispered(made)] == ["Approved", "Nothing changed"]
        await put(made.desk, "approve", name, LINUS)
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert (await made.rollout(name)).phase is Phase.PROMOTED
        assert len(whispered(made)) == 3


async def test_who_started_it_cannot_approve_it() -> None:
    """Four eyes: Grace started and is a release lead, and still Linus has to agree."""
    async with stage() as made:
        answer = await start(made.desk, StartAsk("payments", steps=ASKS), GRACE)
        assert answer.rollout is not None
        name = answer.rollout.id
        await made.play(20, until=lambda: made.store.rollouts.records[name].rollout.phase is Phase.AWAITING_APPROVAL)
        await put(made.desk, "approve", name, GRACE)
        await made.play(5)
        assert made.weights() == [10]
        assert "you started this rollout" in whispered(made)[-1]
        await put(made.desk, "approve", name, LINUS)
        await made.play(3)
        assert made.weights() == [10, 50]


async def test_an_approval_does_not_replace_a_pass() -> None:
    """Approved while the canary begins to fail: it goes to 0, not to 50%."""
    async with stage() as made:
        name = await asked(made, quorum=1)
        made.metrics.behave(HOST, "v2", fail=0.5)
        await made.play(0.5)
        await put(made.desk, "approve", name, GRACE)
        await made.play(10)
        assert (made.weights(), (await made.rollout(name)).phase) == ([10, 0], Phase.ROLLED_BACK)


async def test_a_freeze_in_mid_bake_holds_and_its_end_goes_on() -> None:
    """No weight goes up between its beginning and its end, whoever ends it; both are told in the thread."""
    async with stage() as made:
        name = await started(made, "10%:8s, 50%:4s, 100%:4s")
        await made.play(8, until=lambda: made.weights() == [10])
        await freezing.freeze(made.desk, "payments", None, "audit", GRACE)
        await made.play(60)
        rollout = await made.rollout(name)
        assert (rollout.phase, made.weights()) == (Phase.HOLDING, [10])
        await freezing.unfreeze(made.desk, "payments", GRACE)
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        await made.play(5)
        assert ((await made.rollout(name)).phase, made.weights()) == (Phase.PROMOTED, [10, 50, 100])
        said = " ".join(made.chat.texts)
        assert "Held by a freeze: frozen by Grace" in said
        assert "The freeze is over." in said


async def test_a_freeze_of_another_service_holds_nothing() -> None:
    """Freezes bind their own service only."""
    async with stage() as made:
        await made.add_service("checkout")
        name = await started(made, "10%:4s, 100%:4s")
        await freezing.freeze(made.desk, "checkout", None, "audit", GRACE)
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        assert (await made.rollout(name)).phase is Phase.PROMOTED


async def test_a_canary_goes_back_in_a_freeze() -> None:
    """By its gates, without anybody's help."""
    async with stage() as made:
        name = await started(made, "10%:60s, 100%:4s")
        await made.play(8, until=lambda: made.weights() == [10])
        await freezing.freeze(made.desk, "all", None, "audit", GRACE)
        made.metrics.behave(HOST, "v2", fail=0.5)
        await made.play(15)
        assert ((await made.rollout(name)).phase, made.mesh.weights("payments")) == (Phase.ROLLED_BACK, (100, 0))


async def test_a_person_rolls_back_in_a_freeze() -> None:
    """The button works whatever is frozen."""
    async with stage() as made:
        name = await started(made, "10%:60s, 100%:4s")
        await made.play(8, until=lambda: made.weights() == [10])
        await freezing.freeze(made.desk, "all", None, "audit", GRACE)
        await rollback(made.desk, name, ADA, "fire")
        await made.play(3)
        assert (await made.rollout(name)).phase is Phase.ROLLED_BACK


async def test_freezes_unread_since_the_process_began_are_no_leave_to_begin() -> None:
    """A process that has never been able to read the freezes does not even take the first step."""
    async with stage() as made:
        tell = made.store.freezes.all
        await freezing.freeze(made.desk, "all", None, "audit", GRACE)
        name = await scheduled(made, 40)
        await made.engine.stop()

        async def away() -> tuple[object, ...]:
            raise Transient("Redis is busy")

        made.store.freezes.all = away  # type: ignore[method-assign, assignment]
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(60)
        assert made.weights() == []
        made.store.freezes.all = tell  # type: ignore[method-assign]
        await made.play(10)
        assert (made.weights(), (await made.rollout(name)).hold_reasons) == ([], frozenset({HoldReason.FREEZE}))
