"""An event loop in virtual time whose every choice comes from one seed, with processes that can be stopped and killed.

Each simulated process runs in a context of its own. A killed process never runs another callback (no `finally`, as
after kill -9); a stopped one (SIGSTOP) finds all of them waiting when it goes on.
"""

import asyncio
import heapq
import sys
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field
from random import Random
from typing import Any

SAME_MOMENT_S = 1e-9
TURNS_TO_END = 1000


class Due:
    """A callback that is to run: what the loop and its tasks need of an `asyncio.Handle`, at a third of the cost."""

    __slots__ = ("_cancelled", "args", "callback", "context")

    def __init__(self, callback: Any, args: Any, context: Context | None) -> None:
        self.callback, self.args = callback, args
        self.context = copy_context() if context is None else context
        self._cancelled = False

    def cancel(self) -> None:
        """It will not run."""
        self._cancelled = True
        self.callback = self.args = None

    def cancelled(self) -> bool:
        """Whether it will not."""
        return self._cancelled


@dataclass(slots=True, eq=False)
class Process:
    """One simulated process; `held` are callbacks that came due while it was stopped."""

    name: str
    dead: bool = False
    stopped: bool = False
    held: list[Due] = field(default_factory=list)
    context: Context = field(default_factory=Context)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)


PROCESS: ContextVar[Process] = ContextVar("process")
WORLD: Context = Context()
"""What belongs to no process: the network, the servers, the people."""


class Stuck(Exception):
    """Nothing is left that could happen."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Time passes only when nothing is ready; what is ready at one moment runs in a drawn order."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random
        self._moment = 0.0
        self._ended = False
        self._order = 0
        self._timers: list[tuple[float, int, Due]] = []
        self._made: list[asyncio.Task[Any]] = []
        self.unexpected: list[str] = []

    def time(self) -> float:
        """Virtual seconds since the beginning."""
        return self._moment

    def play(self, main: Coroutine[Any, Any, None]) -> None:
        """Run until `main` has ended; whatever else is pending then is left where it is. A generator of a process that
        was killed is not closed when it is collected: nothing of it runs any more."""
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(finalizer=lambda generator: None)
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main)
            while not task.done():
                self._turn()
            task.result()
        finally:
            asyncio._set_running_loop(None)
            sys.set_asyncgen_hooks(*hooks)

    def spawn(self, process: Process, coroutine: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Run a coroutine as part of a process."""
        task = process.context.run(self.create_task, coroutine)
        task.set_name(name or process.name)
        return task

    def enter(self, process: Process) -> None:
        """Make a process known to its own context."""
        process.context.run(PROCESS.set, process)

    def go_on(self, process: Process) -> None:
        """Continue a stopped process: everything that came due meanwhile is ready now."""
        process.stopped = False
        self._ready.extend(process.held)  # type: ignore[attr-defined]
        process.held = []

    def end(self) -> None:
        """Cancel what is pending in whatever process, so that nothing is left to complain when it is collected."""
        self._ended = True
        pending = [task for task in self._made if not task.done()]
        for task in pending:
            task.cancel()
        asyncio._set_running_loop(self)
        try:
            for _ in range(TURNS_TO_END):
                if not self._ready:  # type: ignore[attr-defined]
                    break
                self._turn()
            for task in pending:
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                if not task.done():
                    with suppress(RuntimeError):
                        task.get_coro().close()
        finally:
            asyncio._set_running_loop(None)
        self.close()

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio complains of; a run with any is a failed one."""
        self.unexpected.append(f"{context.get('message')}: {context.get('exception')!r}")

    def create_task(  # type: ignore[override]
        self, coroutine: Any, *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[Any]:
        """A task of this loop, kept until its end."""
        task: asyncio.Task[Any] = asyncio.Task(coroutine, loop=self, name=name, context=context)
        self._made.append(task)
        return task

    def create_future(self) -> asyncio.Future[Any]:
        """A future of this loop."""
        return asyncio.Future(loop=self)

    def call_soon(  # type: ignore[override]
        self, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """Run a callback in this moment."""
        handle = Due(callback, args, context)
        self._ready.append(handle)  # type: ignore[attr-defined]
        return handle

    def call_at(  # type: ignore[override]
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """Run a callback at a moment."""
        handle = Due(callback, args, context)
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, handle))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> Any:
        """Run a callback some seconds from now."""
        handle = Due(callback, args, context)
        self._order += 1
        heapq.heappush(self._timers, (self._moment + delay, self._order, handle))
        return handle

    def _turn(self) -> None:
        timers, ready = self._timers, self._ready  # type: ignore[attr-defined]
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Stuck("nothing is left that could happen")
            self._moment = max(self._moment, timers[0][0])
        end = self._moment + SAME_MOMENT_S
        while timers and timers[0][0] <= end:
            ready.append(heapq.heappop(timers)[2])
        handles = list(ready)
        ready.clear()
        if len(handles) == 2:
            if self._random.random() < 0.5:
                handles.reverse()
        elif len(handles) > 2:
            self._random.shuffle(handles)
        for handle in handles:
            if handle._cancelled:
                continue
            context = handle.context
            process = context.get(PROCESS)
            if process is None or self._ended or not (process.dead or process.stopped):
                try:
                    context.run(handle.callback, *handle.args)
                except Exception as error:
                    self.call_exception_handler({"message": f"in {handle.callback!r}", "exception": error})
            elif not process.dead:
                process.held.append(handle)
