"""Who may do what."""

from dataclasses import dataclass

import pytest

from bot.rollout.events import VERBS
from bot.rollout.policy import ROLE_OF, Membership, Role, Roles, allowed


@dataclass(frozen=True)
class Person:
    id: str
    full_member: bool = True


GUEST = Person("U0GUEST", full_member=False)
ADA, GRACE = Person("U0ADA"), Person("U0GRACE")
LEADS = Membership(("@release-leads", "U0BOSS"), frozenset(("U0GRACE", "U0BOSS")))
UNKNOWN = Membership(("@release-leads",), frozenset(), known=False)


@pytest.mark.parametrize("verb", sorted(ROLE_OF))
def test_guests_and_bots_may_nothing(verb: str) -> None:
    """Whoever is no full member is refused every verb, also where a role names them."""
    everyone = Membership(("@all",), frozenset((GUEST.id,)))
    assert allowed(verb, GUEST, Roles()) is not None
    assert allowed(verb, GUEST, Roles(everyone, everyone, everyone, everyone)) is not None


@pytest.mark.parametrize("verb", sorted(ROLE_OF))
def test_without_roles_any_full_member_may(verb: str) -> None:
    """A role that the catalog does not give is open to full members."""
    assert allowed(verb, ADA, Roles()) is None


@pytest.mark.parametrize(
    ("verb", "role"), [(verb, role) for verb, role in ROLE_OF.items()], ids=lambda one: str(getattr(one, "value", one))
)
def test_a_role_lets_in_its_members_only(verb: str, role: Role) -> None:
    """Exactly the role of the verb decides, and the refusal names the groups and people who hold it."""
    roles = {
        Role.STARTER: Roles(starters=LEADS),
        Role.APPROVER: Roles(approvers=LEADS),
        Role.OPERATOR: Roles(operators=LEADS),
        Role.ROLLBACK: Roles(rollback=LEADS),
    }
    assert allowed(verb, GRACE, roles[role]) is None
    refusal = allowed(verb, ADA, roles[role])
    assert refusal is not None
    assert (refusal.role, "@release-leads or <@U0BOSS>" in refusal.text) == (role, True)
    for other, narrowed in roles.items():
        if other is not role:
            assert allowed(verb, ADA, narrowed) is None


def test_when_slack_cannot_tell_only_rolling_back_is_allowed() -> None:
    """An unknown membership refuses what raises risk, and never a rollback."""
    roles = Roles(UNKNOWN, UNKNOWN, UNKNOWN, UNKNOWN)
    for verb, role in ROLE_OF.items():
        refusal = allowed(verb, GRACE, roles)
        assert (refusal is None) == (role is Role.ROLLBACK)


def test_every_request_has_a_role_and_unknown_verbs_are_refused() -> None:
    """No verb of a rollout is without a rule; what is not known is not allowed."""
    assert set(VERBS) <= set(ROLE_OF)
    assert allowed("explode", ADA, Roles()) is not None
