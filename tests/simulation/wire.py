"""What lies between a process and the servers: latency, and every way in which a call can fail.

A call that has left a process arrives whatever becomes of the process, also after its caller has given up.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any

from bot.errors import CanaryError, Transient
from tests.simulation.loop import WORLD, Process, VirtualLoop

FATES = ("refused", "lost", "hang", "slow", "late")
LATENCY_S = 0.004
SPREAD_S = 0.03
LATE_S = 6.0
REFUSED_S = 1.0
"""A refused call is over at once; 429 asks for a second."""


def at_once(act: Coroutine[Any, Any, Any]) -> Any:
    """Run what a server does in one piece; the fakes only ever let others go first."""
    try:
        while True:
            act.send(None)
    except StopIteration as end:
        return end.value


@dataclass(slots=True)
class Blade:
    """Where a process is to die: at its `at`-th call that changes something, before it arrives or after.

    With `stops_s` it is stopped there for so long instead.
    """

    at: int
    after: bool
    stops_s: float = 0.0


@dataclass(slots=True)
class Wire:
    """The network of one process.

    `rates` are probabilities of a fault by service or call, `cut` are services out of reach. `died` is called when the
    blade falls, `told` with every fault (service, call, fate, seconds until the caller knows).
    """

    loop: VirtualLoop
    process: Process
    random: Random
    rates: dict[str, float]
    told: Callable[[str, str, str, float], None]
    died: Callable[[], None]
    cut: set[str] = field(default_factory=set)
    blade: Blade | None = None
    changes: int = 0

    async def call(
        self,
        service: str,
        name: str,
        act: Callable[[], Coroutine[Any, Any, Any]],
        timeout_s: float,
        *,
        changes: bool = False,
        more: dict[str, Callable[[], CanaryError]] | None = None,
    ) -> Any:
        """Make a call: the answer, what the server raised, or Transient. `more` are refusals only this server has."""
        if changes and self.blade is not None:
            self.changes += 1
            if self.changes == self.blade.at and not self.blade.after:
                self.died()
                await asyncio.sleep(0)
        fate = self._fate(service, name, more)
        if fate:
            refusal = fate == "refused" or (more is not None and fate in more)
            self.told(service, name, fate, REFUSED_S if refusal else timeout_s)
        reply = self.loop.create_future()
        if not fate:
            delay_s = LATENCY_S + SPREAD_S * self.random.random()
            self.loop.call_later(delay_s, self._arrive, act, reply, changes, context=WORLD)
            return await reply
        if more and fate in more:
            await asyncio.sleep(SPREAD_S * self.random.random())
            raise more[fate]()
        if fate == "refused":
            await asyncio.sleep(SPREAD_S * self.random.random())
            raise Transient(f"{service} refuses the connection ({name})")
        if fate == "slow":
            delay_s = timeout_s * self.random.random()
            self.loop.call_later(delay_s, self._arrive, act, reply, changes, context=WORLD)
            return await reply
        if fate == "lost":
            self.loop.call_later(SPREAD_S * self.random.random(), self._arrive, act, None, changes, context=WORLD)
        elif fate == "late":
            delay_s = timeout_s + LATE_S * self.random.random()
            self.loop.call_later(delay_s, self._arrive, act, None, changes, context=WORLD)
        await asyncio.sleep(timeout_s)
        raise Transient(f"{service} did not answer within {timeout_s:g} s ({name})")

    def _fate(self, service: str, name: str, more: dict[str, Callable[[], CanaryError]] | None) -> str:
        if service in self.cut:
            return "hang" if self.random.random() < 0.5 else "refused"
        rate = self.rates.get(name) or self.rates.get(service, 0.0)
        if not rate or self.random.random() >= rate:
            return ""
        return self.random.choice((*FATES, *(more or ())))

    def _arrive(
        self, act: Callable[[], Coroutine[Any, Any, Any]], reply: "asyncio.Future[Any] | None", changes: bool
    ) -> None:
        try:
            answer = at_once(act())
        except Exception as error:
            if reply is not None and not reply.done():
                reply.set_exception(error)
        else:
            if reply is not None and not reply.done():
                reply.set_result(answer)
        if changes and self.blade is not None and self.changes >= self.blade.at and self.blade.after:
            self.died()


class Remote:
    """A port as a process sees it over its wire."""

    def __init__(self, port: Any, wire: Wire, service: str, timeout_s: float, changing: frozenset[str]) -> None:
        self._port, self._wire, self._service = port, wire, service
        self._timeout_s, self._changing = timeout_s, changing

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        wire, service, timeout_s, changes = self._wire, self._service, self._timeout_s, name in self._changing

        def remote(*args: Any, **named: Any) -> Coroutine[Any, Any, Any]:
            return wire.call(service, name, lambda: found(*args, **named), timeout_s, changes=changes)

        setattr(self, name, remote)
        return remote
