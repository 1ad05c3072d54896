"""Start one part of the sandbox as a child process, learn its address, and end it by its pid.

A part that outlives its parent would keep a port, so the kernel is asked to end the child with us (Linux), and a Python
part also ends when its stdin closes. The child gets a session of its own: Ctrl-C reaches only the parent, which then
stops the parts in its own order.

`subprocess.Popen` with reader threads, not asyncio's subprocesses: a part may be started by a session-wide fixture and
used by tests that each have their own event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import IO, Any

DIE_WITH_STDIN = "CANARY_SANDBOX_DIE_WITH_STDIN"
_PR_SET_PDEATHSIG = 1
_TAIL_LINES = 60
_PORTS = (10_240, 32_768)


class PartError(RuntimeError):
    """A part did not start, or ended by itself; the text carries the end of its stderr."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago, for programs that cannot bind port 0.

    It lies below the range from which systems give ports by themselves, to clients and to who binds port 0: until the
    program has bound it, only another caller of this function could be given the same one.
    """
    dice = random.SystemRandom()
    while True:
        port = dice.randrange(*_PORTS)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    parent = os.getpid()

    def ask() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return ask


@cache
def _launcher() -> ThreadPoolExecutor:
    """One thread that starts every child and stays: the kernel ends a child when the *thread* that started it ends."""
    return ThreadPoolExecutor(1, thread_name_prefix="sandbox-launcher")


def _launch(argv: list[str], cwd: Path | None, env: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        argv,
        cwd=cwd,
        env={**env, DIE_WITH_STDIN: "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_die_with_parent(),  # noqa: PLW1509 - one prctl call, no locks taken
    )


class Part:
    """A running child: a sandbox part that prints a JSON ready line, or a foreign binary that does not."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        log_path: Path | None = None,
        on_stdout: Callable[[bytes], None] | None = None,
        on_stderr: Callable[[bytes], None] | None = None,
    ) -> None:
        self.name = name
        self.ready: dict[str, Any] = {}
        self._on_stdout = on_stdout
        self._on_stderr = on_stderr
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._ready_seen = threading.Event()
        self._log = log_path.open("ab") if log_path is not None else None
        self._process = _launcher().submit(_launch, list(argv), cwd, {**os.environ, **(env or {})}).result()
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_stdout, args=(self._process.stdout,), name=f"{name}-out", daemon=True),
            threading.Thread(target=self._read_stderr, args=(self._process.stderr,), name=f"{name}-err", daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @classmethod
    def module(cls, part: str, *args: str, **options: Any) -> Part:
        """Start `python -m bot.sandbox.<part> args...` without waiting for it."""
        return cls(part, [sys.executable, "-m", f"bot.sandbox.{part}", *args], **options)

    @classmethod
    async def start(cls, part: str, *args: str, ready_within_s: float = 30.0, **options: Any) -> Part:
        """Start `python -m bot.sandbox.<part> args...` and wait for its ready line.

        Raises:
            PartError: no ready line in time, or the part ended; it is stopped then.
        """
        child = cls.module(part, *args, **options)
        await asyncio.to_thread(child.wait_ready, ready_within_s)
        return child

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def url(self) -> str:
        """The address of the ready line, `http://127.0.0.1:PORT`."""
        return str(self.ready["url"])

    @property
    def returncode(self) -> int | None:
        """None while it runs, else its exit status (negative: the signal that ended it)."""
        return self._process.poll()

    @property
    def stderr_tail(self) -> str:
        """The last lines it wrote to stderr."""
        return "\n".join(self._tail)

    def wait_ready(self, within_s: float = 30.0) -> dict[str, Any]:
        """Block until the ready line is there and return it.

        Raises:
            PartError: no ready line in time, or the part ended; it is stopped then.
        """
        deadline = time.monotonic() + within_s
        while not self._ready_seen.wait(0.02):
            ended = self.returncode is not None
            if ended or time.monotonic() > deadline:
                self.stop(0.5)
                why = f"ended with status {self.returncode}" if ended else f"was not ready within {within_s:g} s"
                raise PartError(f"sandbox part {self.name!r} {why}\n{self.stderr_tail}")
        return self.ready

    def send_signal(self, number: int) -> None:
        """Send a signal to this child only; nothing happens when it has ended."""
        self._process.send_signal(number)

    def stop(self, grace_s: float = 2.0, number: int = signal.SIGTERM) -> int:
        """End it (by a signal sent once, after `grace_s` SIGKILL), wait for it, and return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        for reader in self._readers:
            reader.join(1.0)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr, self._log):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return code

    async def stop_async(self, grace_s: float = 2.0, number: int = signal.SIGTERM) -> int:
        """Do `stop` without blocking the event loop."""
        return await asyncio.to_thread(self.stop, grace_s, number)

    def _read_stdout(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in stream:
                if self._on_stdout is not None:
                    self._on_stdout(line)
                elif not self._ready_seen.is_set():
                    self._look_for_ready(line)

    def _look_for_ready(self, line: bytes) -> None:
        try:
            message = json.loads(line)
        except ValueError:
            self._tail.append(line.decode(errors="replace").rstrip())
            return
        if isinstance(message, dict) and message.get("ready"):
            self.ready = message
            self._ready_seen.set()

    def _read_stderr(self, stream: IO[bytes]) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in stream:
                self._tail.append(line.decode(errors="replace").rstrip())
                if self._on_stderr is not None:
                    self._on_stderr(line)
                if self._log is not None:
                    self._log.write(line)
                    self._log.flush()


def announce(url: str, **more: object) -> None:
    """Print a part's one ready line on stdout."""
    print(json.dumps({"ready": True, "url": url, **more}), flush=True)


def stop_event() -> asyncio.Event:
    """Return an event that is set on SIGTERM or SIGINT, or when the parent that started this part is gone.

    A part with something to clean up asks for it before it starts that, so that no signal ends it half-way.
    """
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    if os.environ.get(DIE_WITH_STDIN) == "1":

        def readable() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin.fileno())
                stopped.set()

        loop.add_reader(sys.stdin.fileno(), readable)
    return stopped


async def until_told_to_stop() -> None:
    """Return on SIGTERM or SIGINT, or when the parent that started this part is gone."""
    await stop_event().wait()
