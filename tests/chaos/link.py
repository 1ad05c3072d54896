"""One connection between two parts as a TCP way that can be cut, clogged, slowed, or made to lose what comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from enum import StrEnum


class Way(StrEnum):
    """What becomes of the bytes.

    CUT refuses and resets; CLOGGED takes them and passes them on when it is over, as TCP does after lost packets;
    ONE_WAY does that to what comes back only, so that what was asked for happens; SLOW delays every piece.
    """

    OPEN = "open"
    CUT = "cut"
    CLOGGED = "clogged"
    ONE_WAY = "one-way"
    SLOW = "slow"


SLOW_S = 0.15


class Link:
    """Passes bytes on to one address of this machine. `port` is where it listens after `open`.

    `trap` is sprung once, by the next PATCH that comes by: it is waited for, and says whether the PATCH goes on.
    """

    def __init__(self, name: str, to_port: int) -> None:
        self.name = name
        self.port = 0
        self._to_port = to_port
        self._way = Way.OPEN
        self._passable = asyncio.Event()
        self._passable.set()
        self._streams: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.trap: Callable[[], Awaitable[bool]] | None = None
        self.sprung: Callable[[], Awaitable[None]] | None = None
        """Called after the PATCH has gone on."""

    async def open(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
        self.put(Way.CUT)
        for stream in list(self._streams):
            stream.cancel()
        await asyncio.gather(*self._streams, return_exceptions=True)

    def put(self, way: Way) -> None:
        """From now on this becomes of the bytes."""
        self._way = way
        if way in (Way.CLOGGED, Way.ONE_WAY):
            self._passable.clear()
        else:
            self._passable.set()
        if way is Way.CUT:
            for writer in list(self._writers):
                writer.transport.abort()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._way is Way.CUT:
                raise ConnectionError("cut")
            there, thence = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, thence}
        streams = {
            asyncio.create_task(self._carry(reader, thence, outward=True)),
            asyncio.create_task(self._carry(there, writer, outward=False)),
        }
        self._streams |= streams
        await asyncio.wait(streams)
        self._streams -= streams
        self._writers -= {writer, thence}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, outward: bool) -> None:
        try:
            while data := await reader.read(65536):
                if self._way is Way.SLOW:
                    await asyncio.sleep(SLOW_S)
                if self._way is Way.CLOGGED or not outward:
                    await self._passable.wait()
                if outward and self.trap is not None and data.startswith(b"PATCH "):
                    trap, self.trap = self.trap, None
                    if not await trap():
                        writer.transport.abort()
                        return
                    writer.write(data)
                    await writer.drain()
                    if self.sprung is not None:
                        await self.sprung()
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            writer.transport.abort()
        finally:
            with contextlib.suppress(OSError):
                writer.close()
