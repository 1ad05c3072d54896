"""Freezes: windows in which nothing starts and no weight goes up."""

from bot.errors import Permanent, Transient, UserError
from bot.rollout.duration import spoken
from bot.rollout.effects import Audit, Message, MessageKind, Tone
from bot.rollout.model import Freeze
from bot.usecases.desk import Desk
from bot.usecases.permission import require
from bot.usecases.reading import services
from bot.usecases.who import Who

ALL = "all"


async def freeze(desk: Desk, scope: str, for_s: float | None, reason: str, who: Who) -> Freeze:
    """Freeze a service or all, for some seconds or until lifted; announced in the default channel."""
    if not reason.strip():
        raise UserError(
            "A freeze needs a reason. Nothing was frozen.", "For example `/canary freeze all for 4h audit`."
        )
    person = await require(desk, "freeze", "" if scope == ALL else scope, who)
    await _known(desk, scope)
    now = desk.clock.now()
    actor = who.called(person.name).actor
    frozen = Freeze(desk.new_id(), scope, reason.strip(), actor, now, None if for_s is None else now + for_s)
    await desk.freezes.add(frozen)
    lasts = f"for {spoken(for_s)}" if for_s is not None else "until it is lifted"
    text = f"{_subject(scope)} frozen {lasts} by {person.name}: {frozen.reason}. No weight goes up; gates stay on."
    await _announce(desk, scope, "freeze", text, who)
    await _ring(desk, scope)
    return frozen


async def unfreeze(desk: Desk, scope: str, who: Who) -> tuple[Freeze, ...]:
    """Lift the freezes of a scope; UserError when there is none."""
    person = await require(desk, "unfreeze", "" if scope == ALL else scope, who)
    lifted = await desk.freezes.remove(scope)
    if not lifted:
        standing = await desk.freezes.all()
        names = ", ".join(f"`{one.scope}`" for one in standing)
        raise UserError(f"`{scope}` is not frozen.", f"Frozen now: {names}." if names else "Nothing is frozen.")
    text = f"{_subject(scope)} no longer frozen (lifted by {person.name}). Rollouts go on by themselves."
    await _announce(desk, scope, "unfreeze", text, who)
    await _ring(desk, scope)
    return lifted


async def freezes(desk: Desk) -> tuple[Freeze, ...]:
    """Freezes in force or to come, oldest first."""
    now = desk.clock.now()
    standing = [one for one in await desk.freezes.all() if one.until is None or one.until > now]
    return tuple(sorted(standing, key=lambda one: one.since))


async def _known(desk: Desk, scope: str) -> None:
    """UserError for a service that nobody knows; when the API server cannot tell, the freeze is taken as said."""
    if scope == ALL or scope in desk.catalog().services:
        return
    try:
        names = {view.service for view in await services(desk)}
        running = {one.service for one in await desk.rollouts.outlines()}
    except (Transient, Permanent):
        return
    if scope in names | running:
        return
    near = desk.catalog().nearest(scope, names)
    hint = f"Did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else "`/canary services` lists them."
    raise UserError(f"There is no service called `{scope}`. Nothing was frozen.", hint)


def _subject(scope: str) -> str:
    return "All services are" if scope == ALL else f"{scope} is"


async def _announce(desk: Desk, scope: str, what: str, text: str, who: Who) -> None:
    """Say it in the channel of what is frozen, and record who did it."""
    now = desk.clock.now()
    channel = desk.catalog().entry("" if scope == ALL else scope).rules.channel
    await desk.rollouts.note([Audit(now, scope, what, who.user_id, text, 0)])
    await desk.outbox.add(f"freeze:{scope}", [Message(MessageKind.NOTICE, text, tone=Tone.WAIT, channel=channel)], now)


async def _ring(desk: Desk, scope: str) -> None:
    for one in await desk.rollouts.outlines():
        if scope in (ALL, one.service):
            await desk.inbox.ring(one.id)
