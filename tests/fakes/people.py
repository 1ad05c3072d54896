"""People and groups, as a test says they are."""

from collections.abc import Iterable, Mapping

from bot.errors import NotFound, Transient
from bot.ports.people import Person

ADA = Person("U0ADA", "Ada", True, "Europe/Berlin")
GRACE = Person("U0GRACE", "Grace", True, "America/New_York")
LINUS = Person("U0LINUS", "Linus", True, "Europe/Helsinki")
GUEST = Person("U0GUEST", "Guest", False)
STRANGER = Person("U0STRANGER", "Stranger", False)
EVERYBODY = (ADA, GRACE, LINUS, GUEST, STRANGER)
GROUPS = {"@release-leads": ("U0GRACE", "U0LINUS"), "@oncall": ("U0LINUS",)}


class FakeDirectory:
    """Implements `Directory`; `down = True` makes the chat unable to tell."""

    def __init__(self, people: Iterable[Person] = EVERYBODY, groups: Mapping[str, Iterable[str]] | None = None) -> None:
        self.people = {person.id: person for person in people}
        self.groups = {name: frozenset(members) for name, members in (GROUPS if groups is None else groups).items()}
        self.down = False
        self.unheard: set[str] = set()
        """Channels that are not there."""

    async def hears(self, channel: str) -> bool:
        self._reach()
        return channel not in self.unheard

    async def person(self, user_id: str) -> Person:
        self._reach()
        if user_id not in self.people:
            raise NotFound(f"no person {user_id}")
        return self.people[user_id]

    async def members(self, group: str) -> frozenset[str]:
        self._reach()
        if group not in self.groups:
            raise NotFound(f"no user group {group}")
        return self.groups[group]

    def _reach(self) -> None:
        if self.down:
            raise Transient("Slack does not answer")
