"""What reaches the chat, in which order, when the chat is slow, away, or has lost what we posted."""

from bot.rollout.effects import Message, MessageKind, Tone
from bot.rollout.model import Phase
from bot.usecases.requests import put
from tests.engine.stage import ADA, Stage, stage
from tests.engine.test_stories import started
from tests.fakes.chat import Said

LONG = "10%:600s, 100%:4s"


def card_of(made: Stage) -> Said:
    """The card: the only message of a quiet rollout that is not in a thread."""
    (card,) = [said for said in made.chat.messages.values() if said.channel == "payments" and not said.thread]
    return card


def notes(made: Stage, *words: str) -> list[str]:
    """Texts of the card's thread that contain one of the words, in the order in which they were posted."""
    return [
        said.text for said in made.chat.messages.values() if said.thread and any(word in said.text for word in words)
    ]


async def at_ten(made: Stage) -> str:
    name = await started(made, LONG)
    await made.play(12, until=lambda: made.weights() == [10])
    await made.play(10)
    return name


async def test_a_rate_limit_delays_and_keeps_the_order() -> None:
    """429 on the next four calls: every note arrives once, as it was said, after the wait that the chat asked for."""
    async with stage() as made:
        name = await at_ten(made)
        made.chat.limited = 4
        for number in range(3):
            await put(made.desk, "hold", name, ADA, reason=f"reason {number}")
            await put(made.desk, "resume", name, ADA)
        await made.play(5)
        assert notes(made, "reason") == []
        await made.play(90)
        said = [text.partition("reason ")[2][0] for text in notes(made, "Held at")]
        assert said == ["0", "1", "2"], notes(made, "Held at")
        assert await made.store.outbox.depth() == 0


async def test_what_is_urgent_goes_before_what_waits() -> None:
    """A roll back overtakes the notes that stood in line when it was decided, all but one that was being tried."""
    async with stage() as made:
        name = await at_ten(made)
        made.chat.down = True
        for _ in range(10):
            await put(made.desk, "hold", name, ADA, reason="again")
            await put(made.desk, "resume", name, ADA)
        await made.play(2)
        await put(made.desk, "rollback", name, ADA, reason="fire")
        await made.play(2)
        made.chat.down = False
        await made.play(120)
        told = notes(made, "Rolling back", "resumed it")
        assert any("Rolling back" in text for text in told[:2]), told[:3]
        assert len(notes(made, "resumed it")) == 10


async def test_a_card_that_waited_shows_the_latest_state_only() -> None:
    """However often it changed while the chat was away, it is edited to how things are, not replayed."""
    async with stage() as made:
        name = await at_ten(made)
        before = len(card_of(made).edits)
        made.chat.down = True
        for _ in range(5):
            await put(made.desk, "hold", name, ADA)
            await made.play(1)
            await put(made.desk, "resume", name, ADA)
            await made.play(1)
        await put(made.desk, "hold", name, ADA)
        await made.play(2)
        made.chat.down = False
        await made.play(15)
        card = card_of(made)
        assert "Holding" in card.text, card.text
        assert len(card.edits) - before <= 3, card.edits


async def test_a_card_that_a_person_deleted_is_posted_anew() -> None:
    """The next change finds it gone and posts one; the thread goes on under the new one."""
    async with stage() as made:
        name = await at_ten(made)
        old = card_of(made)
        made.chat.delete(old.channel, old.ts)
        await put(made.desk, "hold", name, ADA, reason="lunch")
        await made.play(10)
        card = card_of(made)
        assert card.ts != old.ts
        assert "Holding" in card.text
        await put(made.desk, "resume", name, ADA)
        await made.play(10)
        (resumed,) = [said for said in made.chat.messages.values() if "resumed it" in said.text]
        assert resumed.thread == card.ts


async def test_a_channel_that_is_unknown_costs_its_messages_and_no_rollout() -> None:
    """With no default channel either, letters for it are dropped and counted; the rollout is promoted, people are
    answered, other channels are told."""
    async with stage() as made:
        made.chat.unknown |= {"#payments", "payments", "#deploys", "deploys"}
        name = await started(made, "10%:4s, 100%:4s")
        await put(made.desk, "hold", name, ADA)
        await made.play(2)
        await put(made.desk, "resume", name, ADA)
        await made.store.outbox.add(
            "elsewhere", [Message(MessageKind.NOTICE, "all is well", tone=Tone.GOOD, channel="#ops")], 0.0
        )
        await made.play(60, until=lambda: made.store.rollouts.records[name].rollout.phase.final)
        await made.play(40)
        assert (await made.rollout(name)).phase is Phase.PROMOTED
        assert made.telemetry.counts["messages_dropped"] > 0
        assert await made.store.outbox.depth() == 0
        assert len(made.chat.whispers) == 2
        assert any("all is well" in text for text in made.chat.texts)


async def test_a_chat_that_is_away_for_a_minute_hears_everything_afterwards() -> None:
    """The rollout goes on meanwhile; each note of it stands in the thread once, and the card shows the end."""
    async with stage() as made:
        name = await started(made, "10%:4s, 50%:4s, 100%:4s")
        await made.play(3)
        made.chat.down = True
        await made.play(60)
        assert (await made.rollout(name)).phase is Phase.PROMOTED
        made.chat.down = False
        await made.play(60)
        assert len(notes(made, "is at 50%")) == len(notes(made, "is at 100%")) == 1
        assert len([text for text in made.chat.texts if "Promoted" in text]) >= 1
        assert "Promoted" in card_of(made).text
        assert await made.store.outbox.depth() == 0


async def test_a_post_whose_reply_is_lost_is_not_posted_twice() -> None:
    """The chat has it although it did not say so: nothing is doubled in the channel."""
    async with stage() as made:
        name = await at_ten(made)
        made.chat.lost_replies = 2
        await put(made.desk, "hold", name, ADA, reason="lunch")
        await made.play(30)
        assert len(notes(made, "lunch")) == 1, notes(made, "lunch")


async def test_a_letter_that_cannot_be_drawn_holds_up_no_other() -> None:
    """A fault of ours in one message is counted, logged, and the next ones go out."""
    async with stage() as made:
        name = await at_ten(made)
        update = made.chat.update

        async def broken(*_: object) -> None:
            made.chat.update = update  # type: ignore[method-assign]
            raise ValueError("a fault of ours")

        made.chat.update = broken  # type: ignore[method-assign, assignment]
        await put(made.desk, "hold", name, ADA, reason="lunch")
        await made.play(10)
        assert len(notes(made, "lunch")) == 1
        assert made.telemetry.counts["messages_dropped"] == 1
