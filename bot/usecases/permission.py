"""Who may do what: people from the directory, roles from the catalog, the rule from the core's policy."""

import asyncio

from bot import catalog
from bot.errors import NotFound, Refused, Transient
from bot.ports.people import Person
from bot.rollout.policy import ROLE_OF, Membership, Role, Roles, allowed
from bot.usecases.desk import Desk
from bot.usecases.who import Who

USER_IDS = ("U", "W")


async def require(desk: Desk, verb: str, service: str, who: Who, namespace: str = "") -> Person:
    """The person, when they may do `verb` to a service; else Refused with the role and who holds it.

    When the chat cannot tell who somebody is, rolling back is allowed and the rest refused.
    """
    try:
        person = await desk.directory.person(who.user_id)
    except Transient as error:
        if ROLE_OF.get(verb) is Role.ROLLBACK:
            return Person(who.user_id, who.name or who.user_id, full_member=True)
        raise Refused(
            f"Slack cannot tell right now who you are, so `{verb}` was not done.",
            "Nothing was changed. Try again in a minute; `rollback` works meanwhile.",
        ) from error
    named = desk.catalog().entry(service, namespace).roles
    refusal = allowed(verb, person, await resolved(desk, named))
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
        if allowed(verb, person, await resolved(desk, entry.roles)) is None:
            return True
    return False


async def resolved(desk: Desk, named: catalog.Roles) -> Roles:
    """The roles of a service with the user ids behind them, as the chat tells them now."""
    memberships = await asyncio.gather(
        *(_members(desk, names) for names in (named.starters, named.approvers, named.operators, named.rollback))
    )
    return Roles(*memberships)


async def _members(desk: Desk, names: tuple[str, ...]) -> Membership:
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
            continue
        except Transient:
            known = False
    return Membership(names, frozenset(ids), known)
