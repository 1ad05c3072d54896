"""Saving: the record, its wake-up, audit and letters in one step, exactly once even when replies are lost."""

from collections.abc import Callable
from dataclasses import dataclass

from bot.engine.book import Attempt, Page
from bot.errors import Conflict, LeaseLost, Permanent, Transient
from bot.ports.store import Rollouts
from bot.ports.telemetry import Telemetry


@dataclass(slots=True)
class Keep:
    """Saves pages with the fencing token of the moment. What the store does not take stays on its page."""

    rollouts: Rollouts
    telemetry: Telemetry
    token: Callable[[], int]
    new_id: Callable[[], str]

    async def save(self, page: Page) -> bool:
        """Write what the page has to say; False when the store does not take it (it stays in memory).

        Raises Conflict and LeaseLost: somebody else has written this record, or the page is a former holder's.
        """
        if page.unsure is not None and not await self._send(page, page.unsure):
            return False
        if not page.dirty:
            return True
        return await self._send(page, page.attempt(self.new_id()))

    async def _send(self, page: Page, attempt: Attempt) -> bool:
        if page.closed:
            raise Conflict(f"{attempt.rollout.id} was loaded anew while it was worked on")
        try:
            await self.rollouts.save(
                attempt.rollout,
                attempt.wake_at,
                attempt.messages,
                attempt.audit,
                token=self.token(),
                save_id=attempt.save_id,
            )
        except (Transient, Permanent) as error:
            self.telemetry.line("save-failed", rollout=attempt.rollout.id, error=str(error))
            return False
        except (Conflict, LeaseLost):
            page.unsure = None
            raise
        page.saved()
        return True
