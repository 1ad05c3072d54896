"""Run the benchmarks that were named, or all."""

import asyncio
import os
import sys

from rich.console import Console

from tests.bench import Bench
from tests.bench.ack import ack
from tests.bench.judge import judge
from tests.bench.load import load
from tests.bench.looks import looks
from tests.bench.pure import decide
from tests.bench.pure import judge as judging
from tests.bench.reading import reading
from tests.bench.series import series
from tests.bench.wake import wake

BENCHES: dict[str, Bench] = {
    "ack": ack,
    "wake": wake,
    "decide": decide,
    "judging": judging,
    "series": series,
    "looks": looks,
    "reading": reading,
    "judge": judge,
    "load": load,
}


def main(names: list[str]) -> int:
    """0 when every requirement was met."""
    console = Console(width=120)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        console.print(f"No bench is called {', '.join(unknown)}. Known: {', '.join(BENCHES)}.")
        return 2
    quick = bool(os.environ.get("QUICK"))
    failed = False
    for name in names or BENCHES:
        table = asyncio.run(BENCHES[name](quick))
        table.show(console)
        console.print(f"rows in {table.write(name)}")
        failed |= bool(table.failures)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
