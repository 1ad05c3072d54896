"""The machine's clocks: the only place in the bot that asks them."""

import asyncio
import time


class SystemClock:
    """Implements `Clock`: wall time in epoch seconds (UTC), monotonic seconds since an unnamed start."""

    def now(self) -> float:
        """Epoch seconds (UTC)."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds that never step back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
