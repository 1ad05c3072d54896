"""People and groups, as the chat knows them."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Person:
    """`full_member` is False for guests, Slack Connect strangers, bots and the deactivated."""

    id: str
    name: str
    full_member: bool
    timezone: str = "UTC"


class Directory(Protocol):
    """Answers are cached for 5 minutes. Errors: Transient when the chat cannot tell."""

    async def person(self, user_id: str) -> Person: ...

    async def members(self, group: str) -> frozenset[str]:
        """User ids in a group, named by handle (`@release-leads`) or id; NotFound for an unknown one."""

    async def hears(self, channel: str) -> bool:
        """There is such a channel (`#deploys` or its id), and the bot may post there."""
