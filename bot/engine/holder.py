"""The lease of a shard's one holder: who may raise, and what happens when it moves.

Without the store the lease runs out by the monotonic clock: then nothing goes up any more, but the holder keeps its
rollouts in memory, goes on measuring, and may still lower.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from bot.errors import CanaryError, Permanent, Transient
from bot.ports.clock import Clock
from bot.ports.store import Lease, Leases
from bot.ports.telemetry import Telemetry
from bot.rollout.effects import Page

LEASE_S = 3.0
RENEW_EVERY_S = 1.0
PAGE_AFTER_S = 15.0
STORE_AWAY = "store-away"


class Moves(Protocol):
    """What the engine does when the lease comes and goes."""

    async def gained(self) -> None: ...

    async def lost(self) -> None: ...

    async def wiped(self) -> None:
        """The store has lost its data while this process held the lease: what is in memory is all there is."""


class Holder:
    """Keeps the lease while it can; `token` is the newest fencing token this process was given, 0 for none.

    One that is not `alone` takes a free lease only when `take` is called: others share the shards with it.
    """

    def __init__(
        self,
        leases: Leases,
        clock: Clock,
        telemetry: Telemetry,
        owner: str,
        moves: Moves,
        page: Callable[[Page], None],
        *,
        alone: bool = True,
    ) -> None:
        self._leases = leases
        self._clock = clock
        self._telemetry = telemetry
        self._owner = owner
        self._moves = moves
        self._page = page
        self._lease: Lease | None = None
        self._away_since: float | None = None
        self._paged = False
        self._leading = False
        self._retiring = False
        self._alone = alone
        self._asking = asyncio.Lock()
        self._confirming = asyncio.Lock()
        self._taking_up: asyncio.Task[None] | None = None

    @property
    def leading(self) -> bool:
        """This process works on rollouts, perhaps without the store and only downwards."""
        return self._leading

    @property
    def store_away(self) -> bool:
        """The last call for the lease got no answer."""
        return self._away_since is not None

    @property
    def token(self) -> int:
        return self._lease.token if self._lease else 0

    @property
    def holds(self) -> bool:
        """The lease was ours when it was last asked for, whether or not its rollouts are loaded yet."""
        return self._lease is not None

    def holds_for(self, within_s: float) -> bool:
        """The lease is ours for certain for longer than a patch may take."""
        return self._lease is not None and self._lease.until - self._clock.monotonic() > within_s

    async def may_raise(self, token: int, within_s: float) -> bool:
        """The same, and the store says so too, for the lease of this token: it has forgotten nothing of what was read
        from it before."""
        try:
            owner = await self._leases.holder()
        except (Transient, Permanent):
            return False
        return owner == self._owner and self.token == token and self.holds_for(within_s)

    @property
    def _lapsed(self) -> bool:
        away = self._away_since is not None
        return self._lease is not None and not away and self._lease.until <= self._clock.monotonic()

    async def confirm(self) -> None:
        """Ask for the lease before anything is done where it has run out although nobody knows that the store is away:
        this process did not run for a while, and another may have what is in its memory."""
        if self._lapsed:
            async with self._confirming:
                if self._lapsed:
                    await self._round(self._alone)

    async def run(self) -> None:
        """Renew for ever; nothing else is waited for between two renewals."""
        while True:
            await self.round()
            await self._clock.sleep(RENEW_EVERY_S)

    def retire(self) -> None:
        """Renew what is held, and take nothing more: the process ends, or another shall have it."""
        self._retiring = True

    def stay(self) -> None:
        """Take again what is free: what was given away is another's now."""
        self._retiring = False

    async def round(self) -> None:
        """Ask for the lease once: renew what is held, else try to get it."""
        await self._round(self._alone)
        await self._wait_for_taking_up()

    async def take(self) -> bool:
        """Try for the lease now, and whether it is held; its rollouts are taken up meanwhile."""
        await self._round(True)
        return self._lease is not None

    async def _round(self, may_take: bool) -> None:
        async with self._asking:
            if self._lease is None and self._away_since is None and not may_take:
                return
            try:
                await self._ask()
            except (Transient, Permanent) as error:
                self._store_gone(error)
            else:
                self._store_back()

    async def doubt(self, token: int) -> None:
        """The store refused a save under our token: act no more, unless it has lost its data (memory is the truth)."""
        async with self._asking:
            if self.token != token:
                return
            try:
                await self._ask()
            except (Transient, Permanent) as error:
                self._telemetry.line("lease-unknown", error=str(error))
            if self.token == token:
                await self.give_up()

    async def _ask(self) -> None:
        if self._lease is None and self._away_since is not None:
            # Who held it when the store went away has its decisions in memory, and asks in the same second.
            await self._leases.holder()
        elif self._lease is None:
            await self._acquire(None)
        elif (renewed := await self._leases.renew(self._owner, self._lease, LEASE_S)) is None:
            await self._acquire(self._lease)
        elif self._lease is not None:
            self._lease = renewed
            await self._take_up()

    async def _acquire(self, former: Lease | None) -> None:
        """Take the lease. If nobody held it since our former token, or the store has forgotten them all, memory is
        still the truth."""
        if self._retiring:
            return
        lease = await self._leases.acquire(self._owner, LEASE_S)
        wiped = former is not None and lease is not None and lease.previous == 0
        unbroken = former is not None and lease is not None and lease.previous == former.token
        if former is not None and not unbroken and not wiped:
            await self.give_up()
        self._lease = lease
        if wiped and self._leading:
            self._telemetry.line("store-wiped")
            await self._moves.wiped()
        elif wiped:
            await self._stop_taking_up()
        await self._take_up()

    async def _take_up(self) -> None:
        """Load everything, while the lease goes on being renewed; until that has succeeded this process only holds the
        lease, and tries again each round."""
        if self._leading or self._retiring or self._lease is None:
            return
        if self._taking_up is None:
            self._telemetry.line("lease-gained", token=self._lease.token)
            self._taking_up = asyncio.create_task(self._load(), name="take-up")
        elif self._taking_up.done():
            failed = self._taking_up
            self._taking_up = None
            failed.result()

    async def _load(self) -> None:
        await self._moves.gained()
        self._lead(True)
        self._taking_up = None

    async def _wait_for_taking_up(self) -> None:
        if self._taking_up is not None:
            await asyncio.wait({self._taking_up}, timeout=RENEW_EVERY_S)

    async def _stop_taking_up(self) -> None:
        loading, self._taking_up = self._taking_up, None
        if loading is not None:
            loading.cancel()
            await asyncio.wait({loading}, timeout=RENEW_EVERY_S)
            if loading.done() and not loading.cancelled() and (error := loading.exception()) is not None:
                self._telemetry.line("take-up-failed", error=str(error))

    async def give_up(self) -> None:
        """Stop acting: somebody else holds a newer token."""
        self._lease = None
        await self._stop_taking_up()
        if self._leading:
            self._lead(False)
            self._telemetry.line("lease-lost")
            await self._moves.lost()

    async def release(self) -> None:
        """Give the lease back on a clean stop, so that another can go on at once."""
        lease, self._lease = self._lease, None
        await self._stop_taking_up()
        self._lead(False)
        if lease is None:
            return
        try:
            await self._leases.release(self._owner, lease)
        except (Transient, Permanent) as error:
            self._telemetry.failed("lease-not-released", error)

    def _lead(self, leading: bool) -> None:
        self._leading = leading
        self._telemetry.gauge("leading", int(leading))

    def _store_gone(self, error: CanaryError) -> None:
        now = self._clock.monotonic()
        if self._away_since is None:
            self._away_since = now
            self._telemetry.failed("store-away", error)
        if not self._paged and now - self._away_since >= PAGE_AFTER_S:
            self._paged = True
            self._page(
                Page(
                    STORE_AWAY,
                    "canary-bot cannot reach its Redis: no weight goes up until it is back",
                    "Gates go on from memory where this process held the lease, and weights towards 0 still work. "
                    f"{error}.",
                )
            )

    def _store_back(self) -> None:
        if self._away_since is not None:
            self._telemetry.line("store-back", away_s=round(self._clock.monotonic() - self._away_since, 1))
        self._away_since = None
        if self._paged:
            self._paged = False
            self._page(Page(STORE_AWAY, "canary-bot reaches its Redis again", resolved=True))
