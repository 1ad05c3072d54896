"""The workspace as it is: people, channels, messages, views, files; everything the page shows.

Times are Unix seconds; `ts` are Slack's message stamps, strings such as `1700000000.000100`, unique in the workspace.
"""

import asyncio
import re
import secrets
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bot.sandbox.slack.blocks import Json, completed, without_actions

TEAM_ID = "T0SANDBOX"
OTHER_TEAM_ID = "T0OTHER"
APP_ID = "A0CANARY"
BOT_ID = "B0CANARY"
BOT_USER = "U0CANARY"
SLACKBOT = "USLACKBOT"
TEAM_DOMAIN = "sandbox"

VERSIONS_KEPT = 200
CALLS_KEPT = 5000
MESSAGES_KEPT = 20_000
RIGHTS_KEPT = 20_000

TRIGGER_S = 3.0
RESPONSE_URL_S = 1800.0
RESPONSE_URL_USES = 5

_BROADCAST = re.compile(r"<!(channel|here|everyone)(?:\|[^>]*)?>")
_SUBTEAM = re.compile(r"<!subteam\^([A-Z0-9]+)(?:\|[^>]*)?>")
_PERSON = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^>]*)?>")


class ApiError(Exception):
    """A refusal: Slack's error code, and what else its answer carries."""

    def __init__(self, code: str, *messages: str, **extra: Any) -> None:
        super().__init__(code)
        self.code = code
        self.extra: Json = dict(extra)
        if messages:
            self.extra["response_metadata"] = {"messages": [f"[ERROR] {message}" for message in messages]}


@dataclass(frozen=True, slots=True)
class User:
    """A person or a bot; `kind` is member, guest, stranger (of another workspace) or bot."""

    id: str
    name: str
    real_name: str
    kind: str = "member"
    title: str = ""

    @property
    def team_id(self) -> str:
        """The workspace the account belongs to."""
        return OTHER_TEAM_ID if self.kind == "stranger" else TEAM_ID

    def as_json(self) -> Json:
        """The user object of `users.info`."""
        return {
            "id": self.id,
            "team_id": self.team_id,
            "name": self.name,
            "deleted": False,
            "real_name": self.real_name,
            "tz": "Europe/London",
            "tz_label": "Greenwich Mean Time",
            "tz_offset": 0,
            "profile": {
                "title": self.title,
                "real_name": self.real_name,
                "display_name": self.name,
                "team": self.team_id,
                **({"api_app_id": APP_ID, "bot_id": BOT_ID} if self.kind == "bot" else {}),
            },
            "is_admin": False,
            "is_owner": False,
            "is_primary_owner": False,
            "is_restricted": self.kind == "guest",
            "is_ultra_restricted": False,
            "is_bot": self.kind == "bot",
            "is_stranger": self.kind == "stranger",
            "is_app_user": False,
            "updated": 1700000000,
        }


@dataclass(slots=True)
class Channel:
    """A channel or a direct conversation (`person` set) and who is in it."""

    id: str
    name: str
    members: set[str]
    topic: str = ""
    is_private: bool = False
    person: str | None = None

    def as_json(self) -> Json:
        """The conversation object of `conversations.info`."""
        if self.person is not None:
            return {"id": self.id, "is_im": True, "user": self.person, "created": 1700000000, "is_archived": False}
        return {
            "id": self.id,
            "name": self.name,
            "name_normalized": self.name,
            "is_channel": not self.is_private,
            "is_group": self.is_private,
            "is_im": False,
            "is_mpim": False,
            "is_private": self.is_private,
            "is_archived": False,
            "is_general": False,
            "is_member": BOT_USER in self.members,
            "is_ext_shared": any(member == "U0STRANGER" for member in self.members),
            "created": 1700000000,
            "creator": "U0ADA",
            "num_members": len(self.members),
            "topic": {"value": self.topic, "creator": "U0ADA", "last_set": 1700000000},
            "purpose": {"value": self.topic, "creator": "U0ADA", "last_set": 1700000000},
        }


@dataclass(frozen=True, slots=True)
class Group:
    """A user group, as `@handle`."""

    id: str
    handle: str
    name: str
    users: tuple[str, ...]

    def as_json(self, include_users: bool) -> Json:
        """The user group object of `usergroups.list`."""
        return {
            "id": self.id,
            "team_id": TEAM_ID,
            "is_usergroup": True,
            "name": self.name,
            "description": "",
            "handle": self.handle,
            "is_external": False,
            "date_create": 1700000000,
            "date_update": 1700000000,
            "date_delete": 0,
            "user_count": str(len(self.users)),
            **({"users": list(self.users)} if include_users else {}),
        }


@dataclass(frozen=True, slots=True)
class Version:
    """What a message said until it was edited at `at` (Unix seconds)."""

    at: float
    text: str
    blocks: list[Json]


@dataclass(slots=True)
class Message:
    """One message with all it has been."""

    channel: str
    ts: str
    user: str
    text: str
    blocks: list[Json]
    thread_ts: str | None = None
    ephemeral_to: str | None = None
    broadcast: bool = False
    files: list[str] = field(default_factory=list)
    attachments: list[Json] = field(default_factory=list)
    metadata: Json | None = None
    reactions: dict[str, list[str]] = field(default_factory=dict)
    edited_at: float | None = None
    edit_count: int = 0
    history: deque[Version] = field(default_factory=lambda: deque(maxlen=VERSIONS_KEPT))

    @property
    def by_bot(self) -> bool:
        """Whether the app wrote it."""
        return self.user == BOT_USER

    def replace(self, text: str, blocks: list[Json], now: float) -> None:
        """Edit in place; what it said before stays in the history."""
        self.history.append(Version(now, self.text, self.blocks))
        self.text, self.blocks = text, blocks
        self.edited_at = now
        self.edit_count += 1

    def as_json(self) -> Json:
        """The message object of the Web API and of interaction payloads."""
        body: Json = {
            "type": "message",
            "user": self.user,
            "ts": self.ts,
            "text": self.text,
            "team": TEAM_ID,
            "blocks": self.blocks,
        }
        if self.by_bot:
            body |= {"bot_id": BOT_ID, "app_id": APP_ID}
        if self.thread_ts:
            body["thread_ts"] = self.thread_ts
        if self.attachments:
            body["attachments"] = self.attachments
        if self.metadata:
            body["metadata"] = self.metadata
        if self.edited_at is not None:
            body["edited"] = {"user": BOT_ID if self.by_bot else self.user, "ts": f"{self.edited_at:.6f}"}
        return body

    def pings(self) -> list[str]:
        """Whom it calls: `channel`, `here`, `everyone`, user group ids and user ids; blocks win over text."""
        words = list(_written(self.blocks)) if self.blocks else [self.text]
        found: list[str] = []
        for word in words:
            for pattern in (_BROADCAST, _SUBTEAM, _PERSON):
                found += pattern.findall(word)
        return list(dict.fromkeys(found))

    def as_state(self, with_history: bool = True) -> Json:
        """All that is known of it, for the page and for tests."""
        state: Json = {
            "channel": self.channel,
            "ts": self.ts,
            "thread_ts": self.thread_ts,
            "user": self.user,
            "text": self.text,
            "blocks": self.blocks,
            "attachments": self.attachments,
            "metadata": self.metadata,
            "files": self.files,
            "reactions": self.reactions,
            "ephemeral_to": self.ephemeral_to,
            "broadcast": self.broadcast,
            "edit_count": self.edit_count,
            "edited_at": self.edited_at,
            "pings": self.pings(),
        }
        if with_history:
            state["history"] = [{"at": old.at, "text": old.text} for old in self.history]
        return state


def _written(value: Any) -> Iterator[str]:
    """The mrkdwn texts in blocks, and rich text's mentions in mrkdwn form."""
    if isinstance(value, list):
        for item in value:
            yield from _written(item)
    elif isinstance(value, dict):
        match value.get("type"):
            case "mrkdwn" | "markdown" if isinstance(value.get("text"), str):
                yield value["text"]
            case "broadcast":
                yield f"<!{value['range']}>"
            case "usergroup":
                yield f"<!subteam^{value['usergroup_id']}>"
            case "user" if "user_id" in value:
                yield f"<@{value['user_id']}>"
            case _:
                for part in value.values():
                    yield from _written(part)


def _forget_oldest(kept: dict[Any, Any], most: int) -> None:
    while len(kept) > most:
        del kept[next(iter(kept))]


@dataclass(slots=True)
class View:
    """An open modal or a home tab."""

    id: str
    user: str
    content: Json
    root_id: str
    previous_id: str | None = None
    hash: str = ""
    values: Json = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> Json:
        """The view object of `views.*` answers and of payloads."""
        return {
            "id": self.id,
            "team_id": TEAM_ID,
            "app_id": APP_ID,
            "app_installed_team_id": TEAM_ID,
            "bot_id": BOT_ID,
            "private_metadata": "",
            "callback_id": "",
            "external_id": "",
            "title": None,
            "submit": None,
            "close": None,
            "clear_on_close": False,
            "notify_on_close": False,
            **self.content,
            "state": {"values": self.values},
            "hash": self.hash,
            "root_view_id": self.root_id,
            "previous_view_id": self.previous_id,
        }

    def as_state(self) -> Json:
        """The view with the person it is open for and the errors shown in it."""
        return {**self.as_json(), "user": self.user, "errors": self.errors}


@dataclass(slots=True)
class File:
    """An uploaded file; `shared` once it was put into a channel."""

    id: str
    name: str
    length: int
    content: bytes = b""
    title: str = ""
    alt_text: str = ""
    shared: bool = False
    uploaded: bool = False

    def as_state(self) -> Json:
        """What is known of it, without its bytes."""
        return {
            "id": self.id,
            "name": self.name,
            "title": self.title or self.name,
            "alt_text": self.alt_text,
            "size": len(self.content),
            "shared": self.shared,
            "path": f"/_sandbox/files/{self.id}/{self.name}",
        }


@dataclass(slots=True)
class Trigger:
    """A right to open one modal, for a short while."""

    user: str
    issued_at: float
    used: bool = False


@dataclass(slots=True)
class ResponseUrl:
    """A right to answer an interaction; `message` is what replace and delete act on."""

    channel: str
    user: str
    issued_at: float
    message: Message | None
    thread_ts: str | None
    uses: int = 0


def people() -> dict[str, User]:
    """The users of the sandbox by id."""
    everyone = (
        User("U0ADA", "ada", "Ada Lovelace", title="Payments, starts releases"),
        User("U0GRACE", "grace", "Grace Hopper", title="Release lead"),
        User("U0LINUS", "linus", "Linus Torvalds", title="On call"),
        User("U0GUEST", "guest", "Gus Guest", "guest", "Contractor"),
        User("U0STRANGER", "stranger", "Sam Stranger", "stranger", "Another company"),
        User(BOT_USER, "canary", "Canary", "bot"),
        User(SLACKBOT, "slackbot", "Slackbot", "bot"),
    )
    return {user.id: user for user in everyone}


def channels() -> dict[str, Channel]:
    """The channels of the sandbox by id. The bot is in all but #random and #secret."""
    team = {"U0ADA", "U0GRACE", "U0LINUS"}
    bot = {BOT_USER}
    rooms = (
        Channel("C0DEPLOYS", "deploys", team | bot | {"U0GUEST", "U0STRANGER"}, "What is being released"),
        Channel("C0PAYMENTS", "payments", team | bot, "The payments service"),
        Channel("C0CHECKOUT", "checkout", team | bot, "The checkout service"),
        Channel("C0RANDOM", "random", set(team), "Anything else"),
        Channel("G0SECRET", "secret", {"U0ADA"}, "Private, without the bot", is_private=True),
    )
    return {room.id: room for room in rooms}


def groups() -> dict[str, Group]:
    """The user groups of the sandbox by id."""
    teams = (
        Group("S0LEADS", "release-leads", "Release leads", ("U0GRACE", "U0LINUS")),
        Group("S0ONCALL", "oncall", "On call", ("U0LINUS",)),
    )
    return {group.id: group for group in teams}


class Workspace:
    """All state of the stand-in; changes are told to every subscriber."""

    def __init__(self) -> None:
        self._watchers: set[asyncio.Queue[Json]] = set()
        self.clear()

    def clear(self) -> None:
        """Back to how it was at the start."""
        self.users = people()
        self.channels = channels()
        self.groups = groups()
        self.messages: dict[tuple[str, str], Message] = {}
        self.views: dict[str, View] = {}
        self.stacks: dict[str, list[str]] = {}
        self.homes: dict[str, View] = {}
        self.files: dict[str, File] = {}
        self.triggers: dict[str, Trigger] = {}
        self.response_urls: dict[str, ResponseUrl] = {}
        self.calls: deque[Json] = deque(maxlen=CALLS_KEPT)
        self._last_us = 0
        self.trigger_s = TRIGGER_S
        self.response_url_s = RESPONSE_URL_S
        self.publish("reset", {})

    def subscribe(self) -> asyncio.Queue[Json]:
        """A queue of all changes from now on."""
        queue: asyncio.Queue[Json] = asyncio.Queue(maxsize=2000)
        self._watchers.add(queue)
        return queue

    def unsubscribe(self, queue: asyncio.Queue[Json]) -> None:
        """Stop filling the queue."""
        self._watchers.discard(queue)

    def publish(self, kind: str, data: Json) -> None:
        """Tell all subscribers; one that fell behind is told to look at everything afresh instead (`reset`)."""
        for queue in self._watchers:
            try:
                queue.put_nowait({"kind": kind, **data})
            except asyncio.QueueFull:
                while not queue.empty():
                    queue.get_nowait()
                queue.put_nowait({"kind": "end" if kind == "end" else "reset"})

    def next_ts(self) -> str:
        """A message stamp later than all before."""
        self._last_us = max(self._last_us + 1, int(time.time() * 1e6))
        return f"{self._last_us // 1_000_000}.{self._last_us % 1_000_000:06d}"

    def person(self, user_id: str) -> User:
        """The user, or `user_not_found`."""
        if user_id not in self.users:
            raise ApiError("user_not_found")
        return self.users[user_id]

    def direct(self, user_id: str) -> Channel:
        """The direct conversation between this person and the bot."""
        self.person(user_id)
        channel_id = f"D0{user_id[2:]}"
        if channel_id not in self.channels:
            self.channels[channel_id] = Channel(
                channel_id, self.users[user_id].name, {user_id, BOT_USER}, person=user_id
            )
            self.publish("channel", {"channel": self.channel_state(self.channels[channel_id])})
        return self.channels[channel_id]

    def channel(self, channel_id: str) -> Channel:
        """The channel of this id as the bot sees it, or `channel_not_found`."""
        found = self.channels.get(channel_id)
        if found is None or (found.is_private and BOT_USER not in found.members):
            raise ApiError("channel_not_found")
        return found

    def channel_to_post(self, name_or_id: str) -> Channel:
        """The channel to write into: an id, a name with or without `#`, or a person's id."""
        if name_or_id in self.users:
            return self.direct(name_or_id)
        for channel in self.channels.values():
            if channel.person is None and channel.name == name_or_id.removeprefix("#"):
                return self.channel(channel.id)
        return self.channel(name_or_id)

    def post(self, message: Message) -> Message:
        """Put a message into its channel."""
        message.blocks = completed(message.blocks)
        if message.broadcast:
            message.blocks = without_actions(message.blocks)
        self.messages[message.channel, message.ts] = message
        _forget_oldest(self.messages, MESSAGES_KEPT)
        self.publish("message", {"message": message.as_state(with_history=False)})
        return message

    def edit(self, message: Message, text: str, blocks: list[Json]) -> None:
        """Change a message in place."""
        blocks = completed(blocks)
        message.replace(text, without_actions(blocks) if message.broadcast else blocks, time.time())
        self.publish("message", {"message": message.as_state(with_history=False)})

    def remove(self, message: Message) -> None:
        """Take a message away."""
        self.messages.pop((message.channel, message.ts), None)
        self.publish("message_deleted", {"channel": message.channel, "ts": message.ts})

    def say_privately(self, user: str, channel: str, text: str, thread_ts: str | None = None) -> Message:
        """Let Slackbot show one person a message that only they see."""
        return self.post(Message(channel, self.next_ts(), SLACKBOT, text, [], thread_ts=thread_ts, ephemeral_to=user))

    def issue_trigger(self, user: str) -> str:
        """A fresh trigger id for this person."""
        trigger_id = f"{secrets.randbelow(10**12)}.{secrets.randbelow(10**12)}.{secrets.token_hex(16)}"
        self.triggers[trigger_id] = Trigger(user, time.monotonic())
        _forget_oldest(self.triggers, RIGHTS_KEPT)
        return trigger_id

    def use_trigger(self, trigger_id: str) -> Trigger:
        """Spend a trigger id, or say why it cannot be."""
        trigger = self.triggers.get(trigger_id)
        if trigger is None:
            raise ApiError("invalid_trigger_id")
        if trigger.used:
            raise ApiError("exchanged_trigger_id")
        if time.monotonic() - trigger.issued_at > self.trigger_s:
            raise ApiError("expired_trigger_id")
        trigger.used = True
        return trigger

    def issue_response_url(
        self, kind: str, channel: str, user: str, message: Message | None, thread_ts: str | None = None
    ) -> str:
        """A fresh path below the stand-in's address to answer an interaction at."""
        key = f"{kind}/{TEAM_ID}/{secrets.randbelow(10**12)}/{secrets.token_urlsafe(18)}"
        self.response_urls[key] = ResponseUrl(channel, user, time.monotonic(), message, thread_ts)
        _forget_oldest(self.response_urls, RIGHTS_KEPT)
        return f"/{key}"

    def use_response_url(self, key: str) -> ResponseUrl:
        """Spend one use, or say why it cannot be."""
        found = self.response_urls.get(key)
        if found is None:
            raise ApiError("invalid_url")
        if time.monotonic() - found.issued_at > self.response_url_s:
            raise ApiError("expired_url")
        if found.uses >= RESPONSE_URL_USES:
            raise ApiError("used_url")
        found.uses += 1
        return found

    def open_view(self, user: str, content: Json, on_top: bool) -> View:
        """Open a modal, alone or on top of the one that is open (three at most)."""
        stack = self.stacks.setdefault(user, [])
        if not on_top:
            self.close_views(user)
            stack = self.stacks.setdefault(user, [])
        elif len(stack) >= 3:
            raise ApiError("push_limit_reached")
        view_id = f"V0{secrets.token_hex(5).upper()}"
        view = View(view_id, user, self._stored(content), stack[0] if stack else view_id, stack[-1] if stack else None)
        view.hash = self._view_hash()
        self.views[view_id] = view
        stack.append(view_id)
        self.publish("view", {"view": view.as_state()})
        return view

    def change_view(self, view: View, content: Json) -> View:
        """Put new content into an open view."""
        view.content = self._stored(content)
        view.hash = self._view_hash()
        view.errors = {}
        self.publish("view", {"view": view.as_state()})
        return view

    def publish_home(self, user: str, content: Json) -> View:
        """Set this person's home tab."""
        view_id = self.homes[user].id if user in self.homes else f"V0HOME{user[2:]}"
        view = View(view_id, user, self._stored(content), view_id, hash=self._view_hash())
        self.homes[user] = view
        self.publish("home", {"view": view.as_state()})
        return view

    def view_errors(self, view: View, errors: dict[str, str]) -> None:
        """Show errors beside the inputs of an open view."""
        view.errors = errors
        self.publish("view", {"view": view.as_state()})

    def close_view(self, view: View) -> None:
        """Close the top view of its person."""
        self.views.pop(view.id, None)
        stack = self.stacks.get(view.user, [])
        if view.id in stack:
            stack.remove(view.id)
        self.publish("view_closed", {"view_id": view.id, "user": view.user})

    def close_views(self, user: str) -> None:
        """Close all views of a person."""
        for view_id in self.stacks.pop(user, []):
            self.views.pop(view_id, None)
            self.publish("view_closed", {"view_id": view_id, "user": user})

    def channel_state(self, channel: Channel) -> Json:
        """The channel with its members, for the page."""
        return {
            "id": channel.id,
            "name": channel.name,
            "topic": channel.topic,
            "is_private": channel.is_private,
            "person": channel.person,
            "members": sorted(channel.members),
        }

    @staticmethod
    def _stored(content: Json) -> Json:
        return {**content, "blocks": completed(content["blocks"])}

    @staticmethod
    def _view_hash() -> str:
        return f"{int(time.time())}.{secrets.token_hex(4)}"
