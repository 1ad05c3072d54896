"""A pager in memory."""

from bot.errors import Transient
from bot.rollout.effects import Page


class FakePager:
    """Implements `Pager`; `down` makes it unreachable."""

    def __init__(self) -> None:
        self.down = False
        self.pages: list[Page] = []

    async def page(self, page: Page) -> None:
        if self.down:
            raise Transient("the pager does not answer")
        self.pages.append(page)
