"""The engine's loops are started again when they fail, and people hear of it: that it fails, and that it is over."""

from bot.engine.engine import BROKEN_AFTER, STEADY_S
from tests.engine.stage import stage


async def test_a_loop_that_runs_steadily_again_resolves_its_page() -> None:
    """Three failures in a row page; a minute of running closes the page, and a later failure begins to count anew."""
    async with stage() as made:
        steered, left = made.mesh.steered, BROKEN_AFTER

        async def breaking(namespaces: object) -> object:
            nonlocal left
            if left:
                left -= 1
                raise RuntimeError("a fault of ours")
            return await steered(())

        made.mesh.steered = breaking  # type: ignore[method-assign, assignment]
        await made.engine.stop()
        made.engine = made.new_engine("bot-2")
        await made.engine.start()
        await made.play(10)
        assert [(page.key, page.resolved) for page in made.pager.pages] == [("loop:recovery", False)]
        await made.play(STEADY_S)
        assert [(page.key, page.resolved) for page in made.pager.pages] == [
            ("loop:recovery", False),
            ("loop:recovery", True),
        ]
