"""Many messages for one channel: its rate limit is kept without asking for it over and over."""

from bot.rollout.effects import Message, MessageKind, Tone
from tests.engine.stage import stage

MESSAGES = 20


async def test_letters_for_one_channel_wait_in_a_line() -> None:
    """Twenty rollouts speak at once: one message a second, all delivered, each asked for about twice."""
    async with stage() as made:
        before = made.store.calls["allowance"]
        for number in range(MESSAGES):
            notice = Message(MessageKind.NOTICE, f"notice {number}", channel="#payments")
            await made.store.outbox.add(f"lane-{number}", [notice], made.clock.now())
        began = made.clock.now()
        while await made.store.outbox.depth() and made.clock.now() < began + 60:
            await made.timeline.advance(0.5)
        texts = [text for text in made.chat.texts if "notice" in text]
        assert len(texts) == len(set(texts)) == MESSAGES
        assert MESSAGES - 2 <= made.clock.now() - began <= MESSAGES + 10
        assert made.store.calls["allowance"] - before <= 3 * MESSAGES


async def test_an_urgent_message_does_not_stand_in_the_line() -> None:
    """What cannot wait takes the next free second, however many stand before it."""
    async with stage() as made:
        for number in range(MESSAGES):
            notice = Message(MessageKind.NOTICE, f"notice {number}", channel="#payments")
            await made.store.outbox.add(f"lane-{number}", [notice], made.clock.now())
        await made.timeline.advance(2.0)
        urgent = Message(MessageKind.NOTICE, "rolled back", tone=Tone.BAD, urgent=True, channel="#payments")
        await made.store.outbox.add("lane-urgent", [urgent], made.clock.now())
        await made.timeline.advance(4.0)
        assert any("rolled back" in text for text in made.chat.texts), made.chat.texts
        await made.timeline.advance(40.0)
        assert await made.store.outbox.depth() == 0
