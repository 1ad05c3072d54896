"""Says in the chat that the store is away, past the outbox, which is away with it."""

from collections.abc import Callable, Sequence

from bot.engine.world import World
from bot.errors import CanaryError, Transient
from bot.rollout.duration import spoken
from bot.rollout.effects import Message, MessageKind, Tone
from bot.rollout.model import Phase, Rollout
from bot.views import render

EVERY_S = 1.0
SAY_AFTER_S = 5.0


class Outage:
    """One notice in each channel with active rollouts once the store has been `away` for five seconds, and one when it
    is back. Only who holds the rollouts in memory speaks: `rollouts` are those of this process that are cut off."""

    def __init__(self, world: World, away: Callable[[], bool], rollouts: Callable[[], Sequence[Rollout]]) -> None:
        self._world = world
        self._away = away
        self._rollouts = rollouts
        self._since: float | None = None
        self._away_s = 0.0
        self._told: set[str] = set()

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            await self.round()
            await self._world.clock.sleep(EVERY_S)

    async def round(self) -> None:
        """Say what is new; what the chat does not take now is said at the next round."""
        now = self._world.clock.monotonic()
        if not self._away():
            if self._since is not None:
                self._away_s = now - self._since
                self._since = None
            for channel in sorted(self._told):
                if await self._say(channel, _back(self._away_s), Tone.GOOD):
                    self._told.discard(channel)
            return
        since = self._since if self._since is not None else now
        self._since = since
        if now - since < SAY_AFTER_S:
            return
        for channel, running in self._by_channel().items():
            if channel not in self._told and await self._say(channel, _away(running), Tone.WAIT):
                self._told.add(channel)

    def _by_channel(self) -> dict[str, list[Rollout]]:
        found: dict[str, list[Rollout]] = {}
        for rollout in self._rollouts():
            if rollout.rules.channel and not rollout.phase.final:
                found.setdefault(rollout.rules.channel, []).append(rollout)
        return found

    async def _say(self, channel: str, text: str, tone: Tone) -> bool:
        """False when the chat may take it later."""
        shown = render(Message(MessageKind.NOTICE, text, tone=tone, channel=channel), None)
        try:
            await self._world.chat.post(channel, shown.text, shown.blocks)
        except Transient:
            return False
        except CanaryError as error:
            self._world.telemetry.line("outage-not-told", channel=channel, error=str(error))
        return True


def _away(running: Sequence[Rollout]) -> str:
    named = [
        f"{one.target.service} {one.target.canary.label} at {one.weight_percent}%"
        for one in running
        if one.phase is not Phase.SCHEDULED
    ]
    those = f" ({', '.join(named[:5])}{' and more' if len(named) > 5 else ''})" if named else ""
    return (
        f"canary-bot cannot reach its Redis. Running rollouts{those} are watched from memory: gates still roll back, "
        "and so does `/canary rollback`. No weight goes up, and approvals and other commands wait until it is back."
    )


def _back(away_s: float) -> str:
    return f"canary-bot reaches its Redis again, after {spoken(away_s)}: rollouts go on where they are."
