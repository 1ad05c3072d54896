"""Paging beyond the chat."""

from typing import Protocol

from bot.rollout.effects import Page


class Pager(Protocol):
    """Sends an alert; raises Transient when it could not."""

    async def page(self, page: Page) -> None: ...
