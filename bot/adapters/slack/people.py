"""People and user groups as Slack knows them, remembered for five minutes."""

from typing import Any

from bot.adapters.slack.api import SlackRefused
from bot.adapters.slack.chat import SlackChat
from bot.adapters.slack.groups import REMEMBERED_S
from bot.errors import Transient
from bot.ports.clock import Clock
from bot.ports.people import Person

_NOT_MEMBERS = ("is_restricted", "is_ultra_restricted", "is_bot", "is_stranger", "deleted", "is_workflow_bot")


class SlackDirectory:
    """Implements `Directory`. `usergroups.users.list` is limited to 20 calls a minute, hence the memory."""

    def __init__(self, chat: SlackChat, clock: Clock) -> None:
        self._chat = chat
        self._clock = clock
        self._people: dict[str, tuple[float, Person]] = {}
        self._members: dict[str, tuple[float, frozenset[str]]] = {}
        self._channels: tuple[float, frozenset[str]] = (float("-inf"), frozenset())

    async def person(self, user_id: str) -> Person:
        """A person; NotFound for an id that Slack does not know."""
        known = self._people.get(user_id)
        if known is not None and known[0] > self._clock.monotonic():
            return known[1]
        answer = await self._asked("users.info", user=user_id)
        person = _person(answer["user"], (await self._chat.myself()).team_id)
        self._people[user_id] = (self._clock.monotonic() + REMEMBERED_S, person)
        return person

    async def members(self, group: str) -> frozenset[str]:
        """User ids in a group, named by handle (`@release-leads`) or id."""
        group_id = await self._chat.groups.id_of(group)
        known = self._members.get(group_id)
        if known is not None and known[0] > self._clock.monotonic():
            return known[1]
        answer = await self._asked("usergroups.users.list", usergroup=group_id)
        members = frozenset(str(user) for user in answer["users"])
        self._members[group_id] = (self._clock.monotonic() + REMEMBERED_S, members)
        return members

    async def hears(self, channel: str) -> bool:
        """There is such a channel, and the bot may post there; asked anew for one that was not there."""
        if channel not in self._channels[1] or self._channels[0] <= self._clock.monotonic():
            try:
                found = await self._chat.channels()
            except SlackRefused as error:
                raise Transient(str(error)) from error
            self._channels = (self._clock.monotonic() + REMEMBERED_S, found)
        return channel in self._channels[1]

    async def _asked(self, method: str, **arguments: str) -> dict[str, Any]:
        """An answer of Slack's; a token that may not ask cannot tell, which is Transient like any silence."""
        try:
            return await self._chat.api.read(method, **arguments)
        except SlackRefused as error:
            raise Transient(str(error)) from error


def _person(user: dict[str, Any], team_id: str) -> Person:
    teams = {str(user.get("team_id", team_id)), *user.get("enterprise_user", {}).get("teams", [])}
    profile = user.get("profile", {})
    name = profile.get("display_name") or user.get("real_name") or profile.get("real_name") or user.get("name", "")
    outside = team_id not in teams or any(user.get(flag) for flag in _NOT_MEMBERS)
    return Person(str(user["id"]), str(name), not outside, str(user.get("tz") or "UTC"))
