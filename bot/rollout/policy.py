"""Who may do what: roles by service, and people who never may."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

from bot.values import dataclass


class Role(StrEnum):
    """What a verb needs; READER is anyone in the workspace."""

    READER = "reader"
    STARTER = "starter"
    APPROVER = "approver"
    OPERATOR = "operator"
    ROLLBACK = "rollback"


class PersonFacts(Protocol):
    """What has to be known of a person; `full_member` False for guests, strangers, bots and the deactivated."""

    @property
    def id(self) -> str:
        """Slack user id."""

    @property
    def full_member(self) -> bool:
        """A member of the workspace in their own right."""


@dataclass(frozen=True, slots=True)
class Membership:
    """One role of a service: the names the catalog gives (`@release-leads`, `U012`), and the user ids they resolve to.

    No names: any full member. `known` is False when the chat could not tell who is in the groups.
    """

    names: tuple[str, ...] = ()
    members: frozenset[str] = frozenset()
    known: bool = True


@dataclass(frozen=True, slots=True)
class Roles:
    """The roles of one service, resolved at the moment of the click."""

    starters: Membership = Membership()
    approvers: Membership = Membership()
    operators: Membership = Membership()
    rollback: Membership = Membership()


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not: a sentence for the person alone, and the role they lack."""

    role: Role
    text: str


ROLE_OF: Mapping[str, Role] = {
    "start": Role.STARTER,
    "restart": Role.STARTER,
    "promote": Role.STARTER,
    "cancel": Role.STARTER,
    "approve": Role.APPROVER,
    "reject": Role.APPROVER,
    "hold": Role.OPERATOR,
    "resume": Role.OPERATOR,
    "extend": Role.OPERATOR,
    "drift": Role.OPERATOR,
    "freeze": Role.OPERATOR,
    "unfreeze": Role.OPERATOR,
    "rollback": Role.ROLLBACK,
    "undo": Role.ROLLBACK,
}
"""The role each verb needs; verbs that only read are not here."""

_WORDS = {
    Role.READER: "a full member",
    Role.STARTER: "a starter",
    Role.APPROVER: "an approver",
    Role.OPERATOR: "an operator",
    Role.ROLLBACK: "somebody who may roll back",
}


def allowed(verb: str, person: PersonFacts, roles: Roles) -> Refusal | None:
    """None when the person may, else the refusal. An unknown verb is refused.

    Guests, Slack Connect strangers and bots never may. When the chat cannot tell who is in a group, rolling back is
    allowed to any full member and everything else is refused. Who started a rollout is asked where it is approved.
    """
    role = ROLE_OF.get(verb)
    if role is None:
        return Refusal(Role.READER, f"`{verb}` is not something that can be asked for.")
    if not person.full_member:
        return Refusal(role, f"Only full members of this workspace may `{verb}`; guests and bots may not.")
    membership = _membership(role, roles)
    if not membership.names or person.id in membership.members:
        return None
    if not membership.known:
        if role is Role.ROLLBACK:
            return None
        return Refusal(
            role, f"Slack cannot tell right now who is in {_names(membership)}, so `{verb}` is refused. Try again."
        )
    return Refusal(role, f"You are not in {_names(membership)}: `{verb}` needs {_WORDS[role]} of this service.")


def _membership(role: Role, roles: Roles) -> Membership:
    match role:
        case Role.STARTER:
            return roles.starters
        case Role.APPROVER:
            return roles.approvers
        case Role.OPERATOR:
            return roles.operators
        case Role.ROLLBACK:
            return roles.rollback
        case Role.READER:
            return Membership()


def _names(membership: Membership) -> str:
    return " or ".join(name if name.startswith("@") else f"<@{name}>" for name in membership.names)
