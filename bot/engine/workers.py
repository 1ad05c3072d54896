"""One task per rollout: rung, it works once more; never two at the same time for the same key."""

import asyncio
from collections.abc import Awaitable, Callable

CANCEL_TRIES = 4
CANCEL_WAITS_S = 0.3
"""A cancellation can be swallowed on its way, by a time-out of the same moment: it is repeated, and not waited for
without end."""

Work = Callable[[str], Awaitable[None]]


class Workers:
    """Runs `work(key)` for every rung key; a ring during the run makes it run once more.

    `work` must not raise: what it lets through ends in `on_error` and the key waits for its next ring.
    """

    def __init__(self, work: Work, on_error: Callable[[str, BaseException], None]) -> None:
        self._work = work
        self._on_error = on_error
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: set[str] = set()
        self._open = True

    def ring(self, key: str) -> None:
        """Make the worker of a key run now, or once more when it is running."""
        if not self._open:
            return
        if key in self._tasks:
            self._again.add(key)
            return
        self._tasks[key] = asyncio.create_task(self._run(key), name=f"worker:{key}")

    def busy(self, key: str) -> bool:
        """The worker of a key is running."""
        return key in self._tasks

    async def _run(self, key: str) -> None:
        try:
            while True:
                self._again.discard(key)
                try:
                    await self._work(key)
                except Exception as error:
                    self._on_error(key, error)
                if key not in self._again or not self._open:
                    return
        finally:
            del self._tasks[key]
            self._again.discard(key)

    async def idle(self) -> None:
        """Wait until no worker runs."""
        while self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    async def close(self, grace_s: float) -> None:
        """Accept no more rings, let running workers finish for `grace_s` seconds, then cancel them."""
        self._open = False
        late = list(self._tasks.values())
        if late:
            await asyncio.wait(late, timeout=grace_s)
        for _ in range(CANCEL_TRIES):
            late = [task for task in late if not task.done()]
            if not late:
                return
            for task in late:
                task.cancel()
            await asyncio.wait(late, timeout=CANCEL_WAITS_S)

    def reopen(self) -> None:
        """Take rings again after `close`."""
        self._open = True
