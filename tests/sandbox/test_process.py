"""Parts of the sandbox start, say so, and never outlive who started them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from bot.sandbox.process import Part, PartError

READY = """print('{"ready": true}', flush=True)"""


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(ask: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not ask():
            await asyncio.sleep(0.02)


def python(name: str, program: str) -> Part:
    return Part(name, [sys.executable, "-c", program])


async def test_a_part_tells_its_address_and_stops() -> None:
    """A started part has a URL that answers, and ends with status 0 when told to."""
    part = await Part.start("prometheus", "--binary", "none")
    try:
        assert part.url.startswith("http://127.0.0.1:")
        reader, writer = await asyncio.open_connection("127.0.0.1", int(part.url.rpartition(":")[2]))
        writer.write(b"GET /-/ready HTTP/1.0\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.close()
        await writer.wait_closed()
    finally:
        assert await part.stop_async() == 0
    assert not alive(part.pid)


def test_a_part_that_fails_shows_its_stderr() -> None:
    """When a part ends before it is ready the error has its status and the end of its stderr."""
    part = python("broken", "import sys; sys.exit('no luck today')")
    with pytest.raises(PartError, match=r"'broken' ended with status 1\n.*no luck today"):
        part.wait_ready()


def test_a_part_that_is_never_ready_is_stopped() -> None:
    """After the deadline the part is ended and the error says how long it had."""
    part = python("silent", "import time; time.sleep(60)")
    with pytest.raises(PartError, match=r"'silent' was not ready within 0.3 s"):
        part.wait_ready(0.3)
    assert not alive(part.pid)


def test_a_part_that_ignores_the_signal_is_killed() -> None:
    """SIGKILL follows SIGTERM after the grace."""
    program = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}; time.sleep(60)"
    part = python("stubborn", program)
    part.wait_ready()
    assert part.stop(0.2) == -signal.SIGKILL


def test_a_part_outlives_the_thread_that_asked_for_it() -> None:
    """A part started from a thread that ends goes on, although the kernel ties a child to the thread that forked it."""
    started: list[Part] = []
    thread = threading.Thread(target=lambda: started.append(python("kept", f"import sys; {READY}; sys.stdin.read()")))
    thread.start()
    thread.join()
    (part,) = started
    part.wait_ready()
    assert part.returncode is None
    assert part.stop() == -signal.SIGTERM


def test_stopping_twice_is_harmless() -> None:
    """A second stop returns the same status."""
    part = python("short", f"import sys; {READY}; sys.stdin.read()")
    part.wait_ready()
    assert part.stop() == part.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
async def test_parts_end_when_their_parent_is_killed() -> None:
    """After `kill -9` of the parent neither the part nor the part's own children are left."""
    program = (
        "import time\n"
        "from bot.sandbox.process import Part\n"
        "kube = Part.module('kube', '--token', 't')\n"
        "kube.wait_ready(30)\n"
        "mesh = Part.module('mesh', '--kube', kube.url, '--token', 't', '--rate', '1')\n"
        "mesh.wait_ready(30)\n"
        "print(kube.pid, mesh.pid, mesh.ready['envoy_pid'], flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    pids: list[int] = []
    try:
        assert parent.stdout is not None
        pids = [int(word) for word in (await asyncio.to_thread(parent.stdout.readline)).split()]
        assert len(pids) == 3
        assert all(alive(pid) for pid in pids)
        parent.kill()
        await until(lambda: not any(alive(pid) for pid in pids))
    finally:
        parent.kill()
        parent.communicate()
        for pid in pids:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
