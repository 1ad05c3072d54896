"""What the demo prints of the announcements."""

from typing import Any

from bot.sandbox.demo.telling import Echo

FAILED = (
    "error-rate failed: 3.08% of v2's 130 requests failed (limit 1%), as the callers' proxies saw it; v1: 0% of 471."
)


class Channel:
    """Messages as the stand-in for Slack shows them."""

    def __init__(self, *texts: str) -> None:
        self._texts = texts

    async def names(self) -> dict[str, str]:
        return {"C1": "#checkout"}

    async def messages(self) -> list[dict[str, Any]]:
        return [
            {"channel": "C1", "ts": f"{number}.0", "thread_ts": "", "ephemeral_to": "", "text": text}
            for number, text in enumerate(self._texts)
        ]


async def test_a_sentence_that_was_printed_is_not_repeated_in_parts() -> None:
    """Without what came before it, the end of a repeated sentence would say something else: stable's 0%."""
    printed: list[str] = []

    def say(text: str = "", tone: str = "") -> None:
        printed.append(text)

    channel: Any = Channel(f"Rolling back: v2 goes to 0. {FAILED}", f"Rolled back: checkout is on v1 again. {FAILED}")
    await Echo(channel, say).round()
    assert printed[0].endswith(FAILED)
    assert printed[1].endswith("#checkout  Rolled back: checkout is on v1 again.")
