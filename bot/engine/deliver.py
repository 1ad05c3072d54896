"""Letters from the outbox into the chat: in order, off the control path, cards in their latest state only.

A letter stays in the outbox until the chat has taken it, so a crash repeats at most the one under way. What is for a
channel that is not there any more is told in the catalog's default channel; when that is not there either, people are
paged.
"""

import asyncio
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable

from bot.engine.rest import rest
from bot.engine.world import World
from bot.errors import CanaryError, NotFound, Permanent, Transient
from bot.ports.chat import NoChannel
from bot.ports.store import Letter, Posted
from bot.rollout.effects import Message, MessageKind, Page, Tone
from bot.rollout.model import Rollout
from bot.views import Rendered, render
from bot.views.message import meant_for

AT_ONCE = 20
IDLE_S = 1.0
BACK_OFF_S = (1.0, 2.0, 5.0, 15.0, 30.0)
EDITS_PER_MINUTE = 50
POSTS_PER_SECOND = 1
SHOWN_KEPT = 2000
LINE_S = 30.0
CLOSED = Posted("", "")
"""Stands for a message that has been closed: the next of its key is posted anew."""
ELSEWHERE_S = 300.0
"""For so long nothing is sent to a channel that was not there."""
UNANNOUNCED = "unannounced"
PLAIN = frozenset({MessageKind.NODE, MessageKind.NOTICE})


class Later(CanaryError):
    """The shared allowance of the workspace is used up, or it is for another channel now; not a failure."""

    def __init__(self, bucket: str, delay_s: float, spacing_s: float) -> None:
        super().__init__(f"wait {delay_s:.1f} s")
        self.bucket = bucket
        self.delay_s = delay_s
        self.spacing_s = spacing_s


class Nowhere(Permanent):
    """A message for a channel that is not there."""

    def __init__(self, channel: str, error: NoChannel) -> None:
        super().__init__(str(error))
        self.channel = channel


class Deliver:
    """Takes letters and posts, edits or whispers them. `current` finds a rollout in memory, `page` tells people who do
    not read the chat."""

    def __init__(self, world: World, current: Callable[[str], Rollout | None], page: Callable[[Page], None]) -> None:
        self._world = world
        self._current = current
        self._page = page
        self._elsewhere: dict[str, float] = {}
        self._unannounced = False
        self._rung = asyncio.Event()
        self._one_round = asyncio.Lock()
        self._closing = False
        self._line: dict[str, float] = {}
        self._shown: OrderedDict[str, str] = OrderedDict()

    def ring(self) -> None:
        """Something was put into the outbox."""
        self._rung.set()

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            self._rung.clear()
            delivered = 0
            if not self._closing:
                try:
                    delivered = await self.round()
                except (Transient, Permanent) as error:
                    self._world.telemetry.line("outbox-unread", error=str(error))
            if not delivered:
                await rest(self._rung, self._world.clock, IDLE_S)

    async def finish(self) -> None:
        """Let `run` begin no more rounds, and deliver what is due now."""
        self._closing = True
        while await self.round():
            pass

    def forget(self) -> None:
        """Another process may have edited what stands in the chat."""
        self._shown.clear()
        self._closing = False

    async def round(self) -> int:
        """Deliver what is due; how many letters left the outbox. Never two rounds at a time: both would take the same.

        Raises Transient when the outbox does not answer, after all letters of the round have been seen to.
        """
        async with self._one_round:
            letters = await self._world.outbox.take(self._world.clock.now(), AT_ONCE)
            outcomes = await asyncio.gather(*(self._deliver(letter) for letter in letters), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        return sum(outcome for outcome in outcomes if outcome is True)

    async def _deliver(self, letter: Letter) -> bool:
        """True when the letter has left the outbox."""
        try:
            await self._say(letter)
        except Later as later:
            await self._put_off(letter, self._turn_s(later, letter))
            return False
        except Transient as error:
            delay = max(error.delay_s, BACK_OFF_S[min(letter.attempts, len(BACK_OFF_S) - 1)])
            self._world.telemetry.count("messages_delayed")
            self._world.telemetry.line("message-delayed", letter=letter.id, delay_s=delay, error=str(error))
            await self._put_off(letter, delay)
            return False
        except Permanent as error:
            self._world.telemetry.count("messages_dropped")
            self._world.telemetry.failed(
                "message-dropped", error, letter=letter.id, rollout=letter.rollout, kind=letter.message.kind
            )
        except Exception as error:
            self._world.telemetry.count("messages_dropped")
            self._world.telemetry.failed(
                "message-broken", error, letter=letter.id, rollout=letter.rollout, kind=letter.message.kind
            )
        await self._world.outbox.done(letter)
        return True

    def _turn_s(self, later: Later, letter: Letter) -> float:
        """Seconds until a letter's turn: those that wait for one bucket stand in a line instead of asking all at once.

        One that has had its turn and was overtaken (by something urgent) goes next.
        """
        now = self._world.clock.now()
        if letter.attempts:
            return later.delay_s
        turn = min(max(now + later.delay_s, self._line.get(later.bucket, 0.0)), now + LINE_S)
        self._line[later.bucket] = turn + later.spacing_s
        return turn - now

    async def _put_off(self, letter: Letter, delay_s: float) -> None:
        await self._world.outbox.delay(letter, self._world.clock.now() + delay_s)

    async def _say(self, letter: Letter) -> None:
        message = letter.message
        rollout = None if message.kind in PLAIN else await self._rollout(letter.rollout)
        try:
            await self._said(letter, message, rollout)
        except Nowhere as nowhere:
            if message.kind is MessageKind.ASKED:
                raise
            named = message.channel or (rollout.rules.channel if rollout else "")
            tried = self._heard(named)
            if tried == named or nowhere.channel != tried:
                await self._move(nowhere, named, rollout)
            if nowhere.channel == self._heard(named):
                self._tell_nobody_hears(nowhere)
                raise
            raise Later(nowhere.channel, 0.0, 0.0) from nowhere

    async def _move(self, nowhere: Nowhere, named: str, rollout: Rollout | None) -> None:
        """From now on what is for this channel is told in the default one, the card as well."""
        self._elsewhere[named] = self._world.clock.monotonic() + ELSEWHERE_S
        self._world.telemetry.line("channel-gone", channel=named, instead=self._heard(named), error=str(nowhere))
        if rollout is None:
            return
        posted = await self._world.outbox.posted(self._card_key(rollout))
        if posted is not None and posted.channel == nowhere.channel:
            await self._world.outbox.set_posted(self._card_key(rollout), CLOSED)
            self._shown.pop(self._card_key(rollout), None)

    def _tell_nobody_hears(self, nowhere: Nowhere) -> None:
        if not self._unannounced:
            summary = f"What canary-bot says is heard by nobody: {nowhere.channel or 'no channel'} is not there"
            detail = f"{nowhere}. Rollouts go on; questions to people reach nobody. Make the channel, or name another."
            self._page(Page(UNANNOUNCED, summary, detail))
        self._unannounced = True

    async def _said(self, letter: Letter, message: Message, rollout: Rollout | None) -> None:
        match message.kind:
            case MessageKind.ANSWER:
                await self._whisper(message, rollout)
            case MessageKind.NODE:
                await self._node(letter.rollout, message)
            case MessageKind.NOTICE:
                await self._post_in(message.channel, render(message, None))
            case _ if rollout is None:
                raise NotFound(f"rollout {letter.rollout} is not in the store")
            case MessageKind.CARD:
                await self._card(rollout, message)
            case MessageKind.NOTE | MessageKind.FINAL:
                card = await self._posted_card(rollout)
                await self._post(card.channel, render(message, rollout), thread=card.ts)
            case MessageKind.ASK:
                posted = await self._post_in(self._channel(message, rollout), render(message, rollout))
                await self._world.outbox.set_posted(self._ask_key(rollout, message), posted)
            case MessageKind.ASKED:
                await self._asked(message, rollout)
            case MessageKind.ALERT:
                await self._post_in(self._channel(message, rollout), render(message, rollout))

    async def _node(self, key: str, message: Message) -> None:
        """A node's message is edited until the node is well; the next trouble is a new message, where people see it."""
        shown = render(message, None)
        if message.tone is not Tone.GOOD:
            await self._edit_or_post(key, message.channel, shown)
            return
        posted = await self._world.outbox.posted(key)
        if posted is not None and posted != CLOSED:
            try:
                await self._update(posted, shown)
            except NotFound:
                self._world.telemetry.line("message-gone", key=key)
            await self._world.outbox.set_posted(key, CLOSED)
        self._shown.pop(key, None)

    async def _rollout(self, rollout_id: str) -> Rollout | None:
        known = self._current(rollout_id)
        if known is not None:
            return known
        try:
            return await self._world.rollouts.load(rollout_id)
        except Permanent:
            return None

    async def _whisper(self, message: Message, rollout: Rollout | None) -> None:
        reply = message.reply
        if reply is None or not reply.user:
            return
        shown = render(message, rollout)
        await self._world.chat.whisper(
            reply.channel, reply.user, shown.text, shown.blocks, thread=reply.thread, response_url=reply.response_url
        )

    async def _card(self, rollout: Rollout, message: Message) -> None:
        await self._edit_or_post(self._card_key(rollout), self._channel(message, rollout), render(message, rollout))

    async def _posted_card(self, rollout: Rollout) -> Posted:
        key = self._card_key(rollout)
        posted = await self._world.outbox.posted(key)
        if posted is None or posted == CLOSED:
            self._shown.pop(key, None)
            await self._card(rollout, Message(MessageKind.CARD))
            posted = await self._world.outbox.posted(key)
        if posted is None or posted == CLOSED:
            raise Transient("the card was posted, but not found afterwards")
        return posted

    async def _asked(self, message: Message, rollout: Rollout) -> None:
        posted = await self._world.outbox.posted(self._ask_key(rollout, message))
        if posted is not None:
            await self._update(posted, render(message, rollout))

    async def _edit_or_post(self, key: str, named: str, shown: Rendered) -> None:
        channel = self._heard(named)
        shown = shown if channel == named else meant_for(named, shown)
        digest = hashlib.sha256(json.dumps((shown.text, shown.blocks), default=str).encode()).hexdigest()
        if self._shown.get(key) == digest:
            return
        posted = await self._world.outbox.posted(key)
        if posted is not None and posted != CLOSED:
            try:
                await self._update(posted, shown)
            except NotFound:
                posted = None
        if posted is None or posted == CLOSED:
            await self._world.outbox.set_posted(key, await self._post(channel, shown))
        self._shown[key] = digest
        self._shown.move_to_end(key)
        if len(self._shown) > SHOWN_KEPT:
            self._shown.popitem(last=False)

    async def _update(self, posted: Posted, shown: Rendered) -> None:
        await self._allow("chat.update", EDITS_PER_MINUTE, 60.0)
        try:
            await self._world.chat.update(posted.channel, posted.ts, shown.text, shown.blocks)
        except NoChannel as error:
            raise Nowhere(posted.channel, error) from error
        self._world.telemetry.count("messages_edited")

    async def _post(self, channel: str, shown: Rendered, *, thread: str = "") -> Posted:
        await self._allow(f"post:{channel}", POSTS_PER_SECOND, 1.0)
        try:
            where, ts = await self._world.chat.post(channel, shown.text, shown.blocks, thread=thread)
        except NoChannel as error:
            raise Nowhere(channel, error) from error
        if self._unannounced:
            self._unannounced = False
            self._page(Page(UNANNOUNCED, f"What canary-bot says is heard again, in {channel}", resolved=True))
        self._world.telemetry.count("messages_posted")
        return Posted(where, ts)

    async def _allow(self, bucket: str, limit: int, window_s: float) -> None:
        wait_s = await self._world.outbox.allowance(bucket, limit, window_s, self._world.clock.now())
        if wait_s > 0:
            raise Later(bucket, wait_s, window_s / limit)

    async def _post_in(self, named: str, shown: Rendered) -> Posted:
        """Post in a channel, or in the default one as long as that is not there."""
        heard = self._heard(named)
        return await self._post(heard, shown if heard == named else meant_for(named, shown))

    def _heard(self, named: str) -> str:
        if self._elsewhere.get(named, 0.0) <= self._world.clock.monotonic():
            return named
        return self._world.catalog().fallback.rules.channel or named

    def _channel(self, message: Message, rollout: Rollout) -> str:
        return message.channel or rollout.rules.channel

    @staticmethod
    def _card_key(rollout: Rollout) -> str:
        return f"card:{rollout.id}"

    @staticmethod
    def _ask_key(rollout: Rollout, message: Message) -> str:
        return f"ask:{rollout.id}:{message.step}"
