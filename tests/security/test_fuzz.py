"""A short run of both fuzzers; `make fuzz MINUTES=30` is the long one."""

from __future__ import annotations

from tests.security.fuzz_http import AT_ONCE, port
from tests.security.fuzz_parser import parser
from tests.security.fuzzing import Try, dice, fuzz


async def test_the_parser_understands_or_answers_every_line() -> None:
    """Four thousand lines: none breaks it, pings anybody, or leaves text that cannot be kept."""
    tally = await fuzz("parser", parser(), 4, cases=range(4_000))
    assert (tally.tries, tally.unhandled) == (4_000, [])


async def test_the_port_survives_what_it_is_sent() -> None:
    """Hundreds of connections with changed requests: no error that nobody handled, no 500, none left open."""
    tally = await fuzz("http", port(), 4, cases=range(12), each=AT_ONCE)
    assert (tally.tries, tally.unhandled) == (12 * AT_ONCE, [])


async def test_a_case_is_the_same_when_it_is_tried_again() -> None:
    """A failing case can be tried alone by its seed and number."""
    assert dice(7, 5).random() == dice(7, 5).random() != dice(7, 6).random()


async def test_a_fault_is_found_and_named() -> None:
    """What an attempt complains of is counted, with the number of its case."""

    class Broken:
        async def __aenter__(self) -> Try:
            async def attempt(dice: object) -> str:
                return "broken"

            return attempt

        async def __aexit__(self, *error: object) -> None:
            return None

    tally = await fuzz("x", Broken(), 1, cases=range(3, 5))
    assert (tally.failed, tally.unhandled) == (2, [(3, "broken"), (4, "broken")])
