"""Benchmarks: `python -m tests.bench [name ...]`; `QUICK=1` ends each within a minute."""

from collections.abc import Callable, Coroutine
from typing import Any

from tests.bench.table import Table

Bench = Callable[[bool], Coroutine[Any, Any, Table]]
