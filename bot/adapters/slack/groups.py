"""User groups by handle, remembered for five minutes; mentions by handle turned into those that ping."""

import re
from typing import Any

from bot.adapters.slack.api import SlackApi, SlackRefused
from bot.errors import CanaryError, NotFound, Transient
from bot.ports.clock import Clock

REMEMBERED_S = 300.0
_BY_HANDLE = re.compile(r"<!subteam\^@([a-zA-Z0-9_.-]+)>")


class Groups:
    """The workspace's user groups."""

    def __init__(self, api: SlackApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._until = float("-inf")
        self._by_handle: dict[str, str] = {}

    async def id_of(self, group: str) -> str:
        """The id of `@release-leads`, `release-leads` or an id; NotFound for an unknown one."""
        await self._refresh()
        wanted = group.removeprefix("@")
        if wanted in self._by_handle.values():
            return wanted
        if wanted.lower() not in self._by_handle:
            raise NotFound(f"Slack has no user group @{wanted}")
        return self._by_handle[wanted.lower()]

    async def _refresh(self) -> None:
        if self._clock.monotonic() < self._until:
            return
        try:
            answer = await self._api.read("usergroups.list")
        except SlackRefused as error:
            raise Transient(str(error)) from error
        self._by_handle = {str(one["handle"]).lower(): str(one["id"]) for one in answer["usergroups"]}
        self._until = self._clock.monotonic() + REMEMBERED_S

    async def called(self, content: Any) -> Any:
        """`content` (text or blocks) with `<!subteam^@handle>` replaced by the group's id, or by plain `@handle` when
        there is no such group or Slack cannot tell."""
        handles = set(_handles(content))
        ids = {handle: await self._mention(handle) for handle in handles}
        return _replaced(content, ids) if ids else content

    async def _mention(self, handle: str) -> str:
        try:
            return f"<!subteam^{await self.id_of(handle)}>"
        except CanaryError:
            return f"@{handle}"


def _handles(content: Any) -> list[str]:
    if isinstance(content, str):
        return _BY_HANDLE.findall(content)
    if isinstance(content, dict):
        return [handle for value in content.values() for handle in _handles(value)]
    if isinstance(content, list | tuple):
        return [handle for value in content for handle in _handles(value)]
    return []


def _replaced(content: Any, ids: dict[str, str]) -> Any:
    if isinstance(content, str):
        return _BY_HANDLE.sub(lambda found: ids[found[1]], content)
    if isinstance(content, dict):
        return {key: _replaced(value, ids) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_replaced(value, ids) for value in content]
    return content
