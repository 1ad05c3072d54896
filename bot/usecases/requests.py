"""What people ask of a running rollout: permission, then the holder's inbox. The holder answers."""

import difflib

from bot.errors import Permanent, UserError
from bot.ports.store import Outline
from bot.rollout.events import Request
from bot.rollout.model import Rollout
from bot.usecases.desk import Desk
from bot.usecases.permission import require
from bot.usecases.who import Who


async def resolve(desk: Desk, text: str) -> Rollout:
    """The rollout a person means: an id, the beginning of one, or a service with one active rollout.

    An id is looked for alone: only for other words is everything that is active read.

    Raises UserError with the nearest names.
    """
    try:
        named = await desk.rollouts.load(text)
    except Permanent:
        named = None
    if named is not None and not named.phase.final:
        return named
    active = await desk.rollouts.outlines()
    matches = [one for one in active if one.service == text] or [one for one in active if one.id.startswith(text)]
    if len(matches) == 1:
        return await desk.rollouts.load(matches[0].id)
    if matches:
        raise UserError(
            f"`{text}` could be {_listed([one.id for one in matches])}. Nothing was changed.",
            "Name one of them by its id.",
        )
    names = [one.id for one in active] + [one.service for one in active]
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.5)
    if near:
        hint = f"Did you mean {_listed(near)}?"
    elif active:
        hint = f"Active now: {_listed(sorted(one.id for one in active))}."
    else:
        hint = "No rollout is active. `/canary history` lists those that have ended."
    raise UserError(f"No active rollout is called `{text}`. Nothing was changed.", hint)


async def put(
    desk: Desk,
    verb: str,
    what: str,
    who: Who,
    *,
    reason: str = "",
    option: str = "",
    revision: int | None = None,
    step: int | None = None,
) -> Rollout:
    """Ask the holder for `verb` on the rollout that `what` names, and tell which that is."""
    rollout = await resolve(desk, what)
    await put_for(desk, verb, Outline.of(rollout), who, reason=reason, option=option, revision=revision, step=step)
    return rollout


async def put_for(
    desk: Desk,
    verb: str,
    rollout: Outline,
    who: Who,
    *,
    reason: str = "",
    option: str = "",
    revision: int | None = None,
    step: int | None = None,
) -> None:
    """Ask the holder for `verb`; `revision` and `step` are those of the button that was clicked."""
    person = await require(desk, verb, rollout.service, who, rollout.namespace)
    await desk.inbox.put(
        Request(
            id=desk.new_id(),
            rollout=rollout.id,
            verb=verb,
            by=who.called(person.name).actor,
            at=desk.clock.now(),
            reason=reason,
            option=option,
            revision=revision,
            step=step,
            reply=who.reply,
        )
    )


def _listed(names: list[str]) -> str:
    """Names for a sentence: `a`, `b` or `c`."""
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
