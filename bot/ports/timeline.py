"""The timeline: one wake-up per key, at a moment."""

from collections.abc import Awaitable, Callable
from typing import Protocol


class Timeline(Protocol):
    """Rings `on_ring(key)` once at the moment set for a key; setting a key again moves it.

    `on_ring` only rings a worker and returns at once. A moment in the past rings at once. Keys still set after
    `stop` never ring.
    """

    async def start(self, on_ring: Callable[[str], Awaitable[None]]) -> None: ...

    async def stop(self) -> None: ...

    def at(self, key: str, when: float) -> None:
        """Ring `key` at `when` (epoch seconds), replacing its earlier moment."""

    def cancel(self, key: str) -> None:
        """Forget a key; unknown keys are fine."""
