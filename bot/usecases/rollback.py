"""Roll back one rollout, a service, or everything: through the holder, and by the routes themselves without Redis."""

import asyncio
from collections.abc import Sequence, Set
from contextlib import suppress

from bot.errors import CanaryError, Conflict, Permanent, Transient, UserError
from bot.ports.mesh import Steered
from bot.ports.store import Outline
from bot.rollout.effects import Audit, Message, MessageKind, SetWeight, Tone
from bot.rollout.model import Direction, Phase
from bot.rollout.route import Mark
from bot.usecases import requests
from bot.usecases.desk import Desk
from bot.usecases.permission import require
from bot.usecases.who import Who

ALL = "all"


async def rollback(
    desk: Desk,
    what: str,
    who: Who,
    reason: str,
    *,
    revision: int | None = None,
    step: int | None = None,
) -> tuple[str, ...]:
    """Send the canary of an id, a service or all to 0. Sentences for the person, empty when the holder answers.

    When the store cannot be reached, the routes that carry our mark are read and set to 0 directly: that needs no
    lease and no record, and the holder finds it on the route afterwards. The same for a route whose record is lost.
    """
    left: list[str] = []
    unheard: dict[str, CanaryError] = {}
    try:
        active = await desk.rollouts.outlines()
        known = {one.id for one in active}
        meant = [one for one in active if what in (ALL, one.id, one.service)]
        if not meant and what != ALL and not await _lost(desk, what, known):
            meant = [Outline.of(await requests.resolve(desk, what))]
        for rollout in meant:
            try:
                await requests.put_for(desk, "rollback", rollout, who, reason=reason, revision=revision, step=step)
            except UserError as error:
                if len(meant) == 1:
                    raise
                left.append(f"{rollout.id} goes on: {error.message}")
            except (Permanent, Conflict) as error:
                unheard[rollout.id] = error
    except Transient:
        return await by_routes(desk, what, who, reason)
    try:
        lost = await _lost(desk, what, known - unheard.keys())
    except CanaryError:
        if not meant:
            raise
        lost = []
    for name in sorted(unheard.keys() - {one.mark.rollout for one in lost}):
        left.append(f"{name} could NOT be rolled back: {unheard[name]}.")
    outcomes = [
        *left,
        *await _all_zero(desk, lost, who, reason, forgotten={one.mark.rollout for one in lost} - unheard.keys()),
    ]
    if not meant and not outcomes:
        return ("No rollout is active and no route carries our mark: there is nothing to roll back.",)
    return tuple(outcomes)


async def by_routes(desk: Desk, what: str, who: Who, reason: str) -> tuple[str, ...]:
    """The way without the store: read the marks, patch to 0."""
    steered = [one for one in await _steered(desk) if what in (ALL, one.mark.rollout, one.mark.service)]
    if not steered:
        return (f"Redis does not answer, and no route that the bot can read carries a rollout of `{what}`.",)
    if len(steered) == 1:
        await _required(desk, steered[0], who)
    outcomes = await _all_zero(desk, steered, who, reason)
    return ("Redis does not answer, so the routes themselves were read.", *outcomes)


async def _lost(desk: Desk, what: str, known: Set[str]) -> list[Steered]:
    """Steered routes of `what` that no active record knows, or whose holder cannot be asked."""
    return [
        one
        for one in await _steered(desk)
        if one.mark.rollout not in known and what in (ALL, one.mark.rollout, one.mark.service)
    ]


async def _all_zero(
    desk: Desk, steered: Sequence[Steered], who: Who, reason: str, *, forgotten: Set[str] = frozenset()
) -> list[str]:
    """What became of each, in words; a fault in one hides no other. `forgotten` ones have no record."""
    outcomes = await asyncio.gather(
        *(_zero(desk, one, who, reason, forgotten=forgotten) for one in steered), return_exceptions=True
    )
    return [
        outcome if isinstance(outcome, str) else _not_zero(one, f"a fault of the bot ({type(outcome).__name__})")
        for one, outcome in zip(steered, outcomes, strict=True)
    ]


def _not_zero(one: Steered, why: object) -> str:
    return f"{one.mark.rollout}: the canary of {one.mark.service} could NOT be set to 0: {why}."


async def _steered(desk: Desk) -> list[Steered]:
    found = await asyncio.gather(*(mesh.steered(desk.namespaces) for mesh in desk.meshes.values()))
    return [steered for routes in found for steered in routes]


async def _required(desk: Desk, steered: Steered, who: Who) -> None:
    await require(desk, "rollback", steered.mark.service, who, steered.target.namespace)


async def _announce(desk: Desk, steered: Steered, why: str, who: Who) -> None:
    """Say and record what no holder will find, for there is no record; as far as the store takes it."""
    now, mark = desk.clock.now(), steered.mark
    text = (
        f"{mark.service} is {why}. The record of {mark.rollout} is lost; its canary is at 0 by the mark on its route."
    )
    channel = desk.catalog().entry(mark.service, steered.target.namespace).rules.channel
    notice = Message(MessageKind.NOTICE, text, tone=Tone.BAD, channel=channel, urgent=True)
    with suppress(Transient, Permanent):
        await desk.rollouts.note([Audit(now, mark.rollout, "rolled-back", who.user_id, text, 0)])
        await desk.outbox.add(mark.rollout, [notice], now)


async def _zero(desk: Desk, steered: Steered, who: Who, reason: str, *, forgotten: Set[str]) -> str:
    mark = steered.mark
    try:
        await _required(desk, steered, who)
    except CanaryError as error:
        return f"{mark.rollout} goes on: {error}"
    why = f"rolled back by {who.name or who.user_id}{f': {reason}' if reason else ''}"
    change = SetWeight(
        Direction.ZERO,
        0,
        Mark(
            rollout=mark.rollout,
            revision=mark.revision + 1,
            weight_percent=0,
            phase=Phase.ROLLED_BACK.value,
            service=mark.service,
            stable=mark.stable,
            canary=mark.canary,
            route=mark.route,
            inserted=mark.inserted,
            reason=why,
        ),
        remove_canary=mark.inserted,
    )
    try:
        await desk.meshes[steered.target.route.mesh].write(steered.target, change)
    except CanaryError as error:
        return _not_zero(steered, error)
    if mark.rollout in forgotten:
        await _announce(desk, steered, why, who)
    return f"{mark.rollout}: the canary of {mark.service} is at 0."
