"""Who may do what: people from the directory, roles from the catalog, the rule from the core's policy."""

import asyncio

from bot import catalog
from bot.errors import NotFound, Refused, Transient
from bot.ports.people import Person
from bot.rollout.policy import ROLE_OF, Membership, Role, Roles, allowed
from bot.usecases.desk import Desk
from bot.usecases.who import Who

USER_IDS = ("U", "W")
ROLLBACK_WAITS_S = 2.0
"""How long a roll back waits for the chat to say who somebody is, or who is in a group."""


async def require(desk: Desk, verb: str, service: str, who: Who, namespace: str = "") -> Person:
    """The person, when they may do `verb` to a service; else Refused with the role and who holds it.

    When the chat cannot tell who somebody is, rolling back is allowed and the rest refused.
    """
    rolls_back = ROLE_OF.get(verb) is Role.ROLLBACK
    try:
        async with asyncio.timeout(ROLLBACK_WAITS_S if rolls_back else None):
            person = await desk.directory.person(who.user_id)
    except (Transient, TimeoutError) as error:
        if rolls_back:
            return Person(who.user_id, who.name or who.user_id, full_member=True)
        raise Refused(
            f"Slack cannot tell right now who you are, so `{verb}` was not done.",
            "Nothing was changed. Try again in a minute; `rollback` works meanwhile.",
        ) from error
    except NotFound as error:
        raise Refused(f"Slack knows nobody by your id, so `{verb}` was not done.", "Nothing was changed.") from error
    named = desk.catalog().entry(service, namespace).roles
    refusal = allowed(verb, person, await resolved(desk, named, ROLE_OF.get(verb)))
    if refusal is not None:
        raise Refused(refusal.text, "Nothing was changed.")
    return person


async def may(desk: Desk, verb: str, who: Who) -> bool:
    """Whether help should show a verb to this person: they may use it on at least one service."""
    if verb not in ROLE_OF:
        return True
    try:
        person = await desk.directory.person(who.user_id)
    except Transient:
        return True
    catalog = desk.catalog()
    entries = tuple(catalog.services.values()) or (catalog.fallback,)
    for entry in entries:
        if allowed(verb, person, await resolved(desk, entry.roles, ROLE_OF[verb])) is None:
            return True
    return False


async def resolved(desk: Desk, named: catalog.Roles, role: Role | None) -> Roles:
    """One role of a service with the user ids behind it, as the chat tells them now; the others are left empty."""
    match role:
        case Role.STARTER:
            return Roles(starters=await _members(desk, named.starters))
        case Role.APPROVER:
            return Roles(approvers=await _members(desk, named.approvers))
        case Role.OPERATOR:
            return Roles(operators=await _members(desk, named.operators))
        case Role.ROLLBACK:
            return Roles(rollback=await _may_roll_back(desk, named.rollback))
        case _:
            return Roles()


async def _may_roll_back(desk: Desk, names: tuple[str, ...]) -> Membership:
    """A chat that is slow, or does not know a group any more, cannot tell who is in it: that stops no roll back."""
    try:
        async with asyncio.timeout(ROLLBACK_WAITS_S):
            return await _members(desk, names, gone_is_known=False)
    except TimeoutError:
        return Membership(names, frozenset(names), known=False)


async def _members(desk: Desk, names: tuple[str, ...], *, gone_is_known: bool = True) -> Membership:
    """Who is behind a list of user ids and groups; a group that does not exist has no members."""
    ids: set[str] = set()
    known = True
    for name in names:
        if name.startswith(USER_IDS):
            ids.add(name)
            continue
        try:
            ids |= await desk.directory.members(name)
        except NotFound:
            known = known and gone_is_known
        except Transient:
            known = False
    return Membership(names, frozenset(ids), known)
