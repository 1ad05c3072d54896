"""Time: the wall clock people read, and the monotonic one that leases trust."""

from typing import Protocol


class Clock(Protocol):
    """`now` is epoch seconds (UTC); `monotonic` seconds that never step back."""

    def now(self) -> float: ...

    def monotonic(self) -> float: ...

    async def sleep(self, seconds: float) -> None: ...
