"""Saving: the record, its wake-up, audit and letters in one step, exactly once even when replies are lost."""

from collections.abc import Callable
from dataclasses import dataclass, field

from bot.engine.book import Page
from bot.errors import Conflict, LeaseLost, Transient
from bot.ports.store import Rollouts
from bot.ports.telemetry import Telemetry
from bot.rollout.effects import Audit, Message
from bot.rollout.model import Rollout


@dataclass(slots=True)
class Attempt:
    """One save as it was sent: repeated to the letter until the store has answered."""

    rollout: Rollout
    wake_at: float | None
    messages: tuple[Message, ...]
    audit: tuple[Audit, ...]
    save_id: str


@dataclass(slots=True)
class Keep:
    """Saves pages with the fencing token of the moment; `unsure` are saves whose reply was lost, by rollout."""

    rollouts: Rollouts
    telemetry: Telemetry
    token: Callable[[], int]
    new_id: Callable[[], str]
    unsure: dict[str, Attempt] = field(default_factory=dict)

    async def save(self, page: Page) -> bool:
        """Write what the page has to say; False when the store is away (it stays in memory).

        Raises Conflict and LeaseLost: somebody else has written this record.
        """
        former = self.unsure.get(page.rollout.id)
        if former is not None and not await self._send(page, former):
            return False
        if not page.dirty:
            return True
        attempt = Attempt(page.rollout, page.wake_at, tuple(page.messages), tuple(page.audit), self.new_id())
        return await self._send(page, attempt)

    async def _send(self, page: Page, attempt: Attempt) -> bool:
        rollout_id = attempt.rollout.id
        self.unsure[rollout_id] = attempt
        try:
            await self.rollouts.save(
                attempt.rollout,
                attempt.wake_at,
                attempt.messages,
                attempt.audit,
                token=self.token(),
                save_id=attempt.save_id,
            )
        except Transient as error:
            self.telemetry.line("save-failed", rollout=rollout_id, error=str(error))
            return False
        except (Conflict, LeaseLost):
            del self.unsure[rollout_id]
            raise
        del self.unsure[rollout_id]
        page.saved(attempt.rollout, len(attempt.messages), len(attempt.audit))
        return True

    def forget(self) -> None:
        """Drop what was unsure: another holder decides now."""
        self.unsure.clear()
