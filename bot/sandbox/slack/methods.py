"""The Web API's methods: their arguments, scopes, rate-limit tiers and what they do.

Reference: https://docs.slack.dev/reference/methods
"""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bot.sandbox.slack.blocks import MARKDOWN_LONGEST, Json, problems, view_problems
from bot.sandbox.slack.workspace import (
    APP_ID,
    BOT_ID,
    BOT_USER,
    OTHER_TEAM_ID,
    TEAM_DOMAIN,
    TEAM_ID,
    ApiError,
    File,
    Message,
    View,
    Workspace,
)

POST_LONGEST = 40_000
UPDATE_LONGEST = 4_000
DEFAULT_SCOPES = (
    "commands",
    "chat:write",
    "chat:write.public",
    "app_mentions:read",
    "im:history",
    "users:read",
    "usergroups:read",
    "channels:read",
    "groups:read",
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its arguments, the stand-in's address, what the token may do, and tickets for sockets."""

    args: Mapping[str, Any]
    base_url: str
    scopes: frozenset[str]
    new_ticket: Callable[[], str]

    def need_scope(self, scope: str) -> None:
        """Refuse with `missing_scope` when the token has it not."""
        if scope not in self.scopes:
            raise ApiError("missing_scope", needed=scope, provided=",".join(sorted(self.scopes)))


Do = Callable[[Workspace, Call], Json]


@dataclass(frozen=True, slots=True)
class Method:
    """`scope` may be empty; `token` is the kind of token: bot or app."""

    do: Do
    scope: str = ""
    tier: int = 3
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    token: str = "bot"
    any_argument: bool = False
    known: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "known", frozenset({*self.required, *self.optional}))


def _api_test(world: Workspace, call: Call) -> Json:
    if error := call.args.get("error"):
        raise ApiError(str(error), args=dict(call.args))
    return {"args": dict(call.args)}


def _auth_test(world: Workspace, call: Call) -> Json:
    return {
        "url": f"https://{TEAM_DOMAIN}.slack.com/",
        "team": "Sandbox",
        "user": world.users[BOT_USER].name,
        "team_id": TEAM_ID,
        "user_id": BOT_USER,
        "bot_id": BOT_ID,
        "is_enterprise_install": False,
    }


def _bots_info(world: Workspace, call: Call) -> Json:
    if call.args.get("bot", BOT_ID) != BOT_ID:
        raise ApiError("bot_not_found")
    bot = {"id": BOT_ID, "deleted": False, "name": "Canary", "app_id": APP_ID, "user_id": BOT_USER}
    return {"bot": bot}


def _team_info(world: Workspace, call: Call) -> Json:
    return {"team": {"id": TEAM_ID, "name": "Sandbox", "domain": TEAM_DOMAIN, "email_domain": ""}}


def _blocks(call: Call, old: list[Json] | None = None) -> list[Json]:
    """The blocks given, checked; `old` when none were."""
    blocks = call.args.get("blocks")
    if blocks is None:
        return list(old or [])
    if not isinstance(blocks, list):
        raise ApiError("invalid_blocks_format")
    if found := problems(blocks):
        raise ApiError("invalid_blocks", *found, errors=found)
    return blocks


def _content(call: Call, longest: int) -> tuple[str, list[Json], list[Json]]:
    """Text, blocks and attachments of a new message, or the refusal."""
    args = call.args
    text, markdown = args.get("text") or "", args.get("markdown_text")
    blocks = _blocks(call)
    attachments = args.get("attachments") or []
    if not isinstance(text, str):
        raise ApiError("invalid_arguments", "must be a string [json-pointer:/text]")
    if markdown is not None:
        if text or blocks:
            raise ApiError("markdown_text_conflict")
        if len(markdown) > MARKDOWN_LONGEST:
            raise ApiError("msg_too_long")
        blocks = [{"type": "markdown", "text": markdown}]
        text = markdown
    if len(text) > longest:
        raise ApiError("msg_too_long")
    if not text and not blocks and not attachments:
        raise ApiError("no_text")
    for name in ("icon_emoji", "icon_url", "username"):
        if args.get(name):
            call.need_scope("chat:write.customize")
    return text, blocks, attachments


def _thread(world: Workspace, channel: str, thread_ts: Any) -> str | None:
    if thread_ts is None:
        return None
    if not isinstance(thread_ts, str):
        raise ApiError("invalid_arguments", "must be a string [json-pointer:/thread_ts]")
    parent = world.messages.get((channel, thread_ts))
    if parent is None or parent.ephemeral_to is not None:
        raise ApiError("thread_not_found")
    return parent.thread_ts or thread_ts


def _chat_post(world: Workspace, call: Call) -> Json:
    channel = world.channel_to_post(str(call.args["channel"]))
    if BOT_USER not in channel.members and "chat:write.public" not in call.scopes:
        raise ApiError("not_in_channel")
    text, blocks, attachments = _content(call, POST_LONGEST)
    message = Message(
        channel.id,
        world.next_ts(),
        BOT_USER,
        text,
        blocks,
        thread_ts=_thread(world, channel.id, call.args.get("thread_ts")),
        broadcast=bool(call.args.get("reply_broadcast")) and call.args.get("thread_ts") is not None,
        attachments=attachments,
        metadata=call.args.get("metadata"),
    )
    world.post(message)
    return {"channel": channel.id, "ts": message.ts, "message": message.as_json()}


def _own_message(world: Workspace, call: Call, cannot: str) -> Message:
    channel = world.channel(str(call.args["channel"]))
    message = world.messages.get((channel.id, str(call.args["ts"])))
    if message is None or message.ephemeral_to is not None:
        raise ApiError("message_not_found")
    if not message.by_bot:
        raise ApiError(cannot)
    return message


def _chat_update(world: Workspace, call: Call) -> Json:
    message = _own_message(world, call, "cant_update_message")
    if not any(call.args.get(name) is not None for name in ("text", "blocks", "attachments", "markdown_text")):
        raise ApiError("no_text")
    blocks = _blocks(call, message.blocks)
    text = call.args.get("text")
    if text is not None and len(str(text)) > UPDATE_LONGEST:
        raise ApiError("msg_too_long")
    if call.args.get("markdown_text") is not None:
        text, blocks, _ = _content(call, UPDATE_LONGEST)
    text = message.text if text is None else str(text)
    if not text and not blocks:
        raise ApiError("no_text")
    if call.args.get("attachments") is not None:
        message.attachments = call.args["attachments"]
    if call.args.get("metadata") is not None:
        message.metadata = call.args["metadata"]
    world.edit(message, text, blocks)
    return {"channel": message.channel, "ts": message.ts, "text": message.text, "message": message.as_json()}


def _chat_post_ephemeral(world: Workspace, call: Call) -> Json:
    channel = world.channel_to_post(str(call.args["channel"]))
    user = str(call.args["user"])
    if BOT_USER not in channel.members and "chat:write.public" not in call.scopes:
        raise ApiError("not_in_channel")
    if user not in channel.members:
        raise ApiError("user_not_in_channel")
    text, blocks, attachments = _content(call, POST_LONGEST)
    thread_ts = _thread(world, channel.id, call.args.get("thread_ts"))
    message = Message(
        channel.id,
        world.next_ts(),
        BOT_USER,
        text,
        blocks,
        thread_ts=thread_ts,
        ephemeral_to=user,
        attachments=attachments,
    )
    world.post(message)
    return {"message_ts": message.ts}


def _chat_delete(world: Workspace, call: Call) -> Json:
    message = _own_message(world, call, "cant_delete_message")
    world.remove(message)
    return {"channel": message.channel, "ts": message.ts}


def _chat_permalink(world: Workspace, call: Call) -> Json:
    channel = world.channel(str(call.args["channel"]))
    message = world.messages.get((channel.id, str(call.args["message_ts"])))
    if message is None or message.ephemeral_to is not None:
        raise ApiError("message_not_found")
    link = f"https://{TEAM_DOMAIN}.slack.com/archives/{channel.id}/p{message.ts.replace('.', '')}"
    if message.thread_ts:
        link += f"?thread_ts={message.thread_ts}&cid={channel.id}"
    return {"channel": channel.id, "permalink": link}


def _view_content(call: Call, kind: str) -> Json:
    view = call.args["view"]
    if found := view_problems(view):
        raise ApiError("invalid_arguments", *found)
    if view["type"] != kind:
        raise ApiError("invalid_arguments", f"view must be of type {kind} [json-pointer:/view/type]")
    return dict(view)


def _views_open(world: Workspace, call: Call) -> Json:
    content = _view_content(call, "modal")
    trigger = world.use_trigger(str(call.args["trigger_id"]))
    return {"view": world.open_view(trigger.user, content, on_top=False).as_json()}


def _views_push(world: Workspace, call: Call) -> Json:
    content = _view_content(call, "modal")
    trigger = world.use_trigger(str(call.args["trigger_id"]))
    if not world.stacks.get(trigger.user):
        raise ApiError("not_found")
    return {"view": world.open_view(trigger.user, content, on_top=True).as_json()}


def _find_view(world: Workspace, call: Call) -> View:
    if view_id := call.args.get("view_id"):
        found = world.views.get(str(view_id))
    elif external_id := call.args.get("external_id"):
        found = next((view for view in world.views.values() if view.content.get("external_id") == external_id), None)
    else:
        raise ApiError("invalid_arguments", "missing required field: view_id or external_id")
    if found is None:
        raise ApiError("not_found")
    return found


def _views_update(world: Workspace, call: Call) -> Json:
    content = _view_content(call, "modal")
    view = _find_view(world, call)
    if call.args.get("hash") not in (None, view.hash):
        raise ApiError("hash_conflict")
    return {"view": world.change_view(view, content).as_json()}


def _views_publish(world: Workspace, call: Call) -> Json:
    content = _view_content(call, "home")
    user = str(call.args["user_id"])
    world.person(user)
    home = world.homes.get(user)
    if call.args.get("hash") is not None and (home is None or home.hash != call.args["hash"]):
        raise ApiError("hash_conflict")
    return {"view": world.publish_home(user, content).as_json()}


def _users_info(world: Workspace, call: Call) -> Json:
    return {"user": world.person(str(call.args["user"])).as_json()}


def _users_list(world: Workspace, call: Call) -> Json:
    members = [user.as_json() for user in world.users.values() if user.team_id != OTHER_TEAM_ID]
    page, following = _page(members, call)
    return {"members": page, "cache_ts": 1700000000, "response_metadata": {"next_cursor": following}}


def _page(rows: list[Json], call: Call) -> tuple[list[Json], str]:
    try:
        start = int(base64.b64decode(str(call.args["cursor"]))) if call.args.get("cursor") else 0
    except ValueError as error:
        raise ApiError("invalid_cursor") from error
    limit = _whole(call, "limit", 100)
    if not 1 <= limit <= 1000:
        raise ApiError("invalid_limit")
    end = start + limit
    return rows[start:end], base64.b64encode(str(end).encode()).decode() if end < len(rows) else ""


def _whole(call: Call, name: str, default: int) -> int:
    value = call.args.get(name)
    if value is None:
        return default
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise ApiError("invalid_arguments", f"must be an integer [json-pointer:/{name}]") from error


def _usergroups_list(world: Workspace, call: Call) -> Json:
    include = bool(call.args.get("include_users"))
    return {"usergroups": [group.as_json(include) for group in world.groups.values()]}


def _usergroups_users_list(world: Workspace, call: Call) -> Json:
    group = world.groups.get(str(call.args["usergroup"]))
    if group is None:
        raise ApiError("no_such_subteam")
    return {"users": list(group.users)}


def _read_scope(world: Workspace, call: Call, channel_id: str) -> None:
    channel = world.channel(channel_id)
    if channel.person is not None:
        call.need_scope("im:read")
    else:
        call.need_scope("groups:read" if channel.is_private else "channels:read")


def _conversations_info(world: Workspace, call: Call) -> Json:
    channel_id = str(call.args["channel"])
    _read_scope(world, call, channel_id)
    return {"channel": world.channels[channel_id].as_json()}


def _conversations_list(world: Workspace, call: Call) -> Json:
    kinds = str(call.args.get("types") or "public_channel").split(",")
    scopes = {"public_channel": "channels:read", "private_channel": "groups:read", "im": "im:read", "mpim": "mpim:read"}
    for kind in kinds:
        if kind not in scopes:
            raise ApiError("invalid_types")
        call.need_scope(scopes[kind])
    rows = []
    for channel in world.channels.values():
        kind = "im" if channel.person else "private_channel" if channel.is_private else "public_channel"
        if kind in kinds and (kind == "public_channel" or BOT_USER in channel.members):
            rows.append(channel.as_json())
    page, following = _page(rows, call)
    return {"channels": page, "response_metadata": {"next_cursor": following}}


def _conversations_open(world: Workspace, call: Call) -> Json:
    call.need_scope("im:write")
    users = [user for user in str(call.args.get("users") or "").split(",") if user]
    if call.args.get("channel"):
        channel = world.channel(str(call.args["channel"]))
    elif len(users) == 1:
        channel = world.direct(users[0])
    else:
        raise ApiError("users_list_not_supplied" if not users else "method_not_supported_for_channel_type")
    return {"channel": {"id": channel.id}, "already_open": True}


def _conversations_join(world: Workspace, call: Call) -> Json:
    channel = world.channel(str(call.args["channel"]))
    if channel.is_private or channel.person:
        raise ApiError("method_not_supported_for_channel_type")
    channel.members.add(BOT_USER)
    world.publish("channel", {"channel": world.channel_state(channel)})
    return {"channel": channel.as_json()}


def _conversations_members(world: Workspace, call: Call) -> Json:
    channel_id = str(call.args["channel"])
    _read_scope(world, call, channel_id)
    page, following = _page([{"id": member} for member in sorted(world.channels[channel_id].members)], call)
    return {"members": [row["id"] for row in page], "response_metadata": {"next_cursor": following}}


def _reactions_add(world: Workspace, call: Call) -> Json:
    channel = world.channel(str(call.args["channel"]))
    message = world.messages.get((channel.id, str(call.args["timestamp"])))
    if message is None or message.ephemeral_to is not None:
        raise ApiError("message_not_found")
    who = message.reactions.setdefault(str(call.args["name"]), [])
    if BOT_USER in who:
        raise ApiError("already_reacted")
    who.append(BOT_USER)
    world.publish("message", {"message": message.as_state(with_history=False)})
    return {}


def _files_get_upload_url(world: Workspace, call: Call) -> Json:
    length = _whole(call, "length", 0)
    if length <= 0:
        raise ApiError("invalid_arguments", "must be greater than 0 [json-pointer:/length]")
    file_id = f"F0{len(world.files) + 1:06d}"
    world.files[file_id] = File(
        file_id, str(call.args["filename"]), length, alt_text=str(call.args.get("alt_txt") or "")
    )
    return {"upload_url": f"{call.base_url}/upload/v1/{file_id}", "file_id": file_id}


def _files_complete_upload(world: Workspace, call: Call) -> Json:
    entries = call.args["files"]
    if not isinstance(entries, list) or not entries:
        raise ApiError("invalid_arguments", "must provide at least 1 item [json-pointer:/files]")
    files = []
    for entry in entries:
        file = world.files.get(str(entry.get("id"))) if isinstance(entry, dict) else None
        if file is None or not file.uploaded:
            raise ApiError("file_not_found")
        if file.shared:
            raise ApiError("file_already_completed")
        files.append(file)
    targets = [call.args.get("channel_id"), *str(call.args.get("channels") or "").split(",")]
    rooms = [world.channel(str(target)) for target in targets if target]
    for room in rooms:
        if BOT_USER not in room.members:
            raise ApiError("not_in_channel")
    threads = [_thread(world, room.id, call.args.get("thread_ts")) for room in rooms]
    for file, entry in zip(files, entries, strict=True):
        file.shared = True
        file.title = str(entry.get("title") or file.name)
        world.publish("file", {"file": file.as_state()})
    text = str(call.args.get("initial_comment") or "")
    for room, thread_ts in zip(rooms, threads, strict=True):
        ids = [file.id for file in files]
        blocks = _blocks(call)
        world.post(Message(room.id, world.next_ts(), BOT_USER, text, blocks, thread_ts=thread_ts, files=ids))
    return {"files": [{"id": file.id, "title": file.title} for file in files]}


_message_arguments = (
    "text",
    "blocks",
    "attachments",
    "markdown_text",
    "as_user",
    "icon_emoji",
    "icon_url",
    "link_names",
    "parse",
    "thread_ts",
    "username",
)


def _open_connection(world: Workspace, call: Call) -> Json:
    address = call.base_url.replace("http://", "ws://", 1)
    return {"url": f"{address}/link/?ticket={call.new_ticket()}&app_id={APP_ID}"}


METHODS: dict[str, Method] = {
    "apps.connections.open": Method(_open_connection, tier=1, token="app"),
    "api.test": Method(_api_test, tier=4, token="any", any_argument=True),
    "auth.test": Method(_auth_test, tier=4, optional=("team_id",)),
    "bots.info": Method(_bots_info, "users:read", 3, (), ("bot", "team_id")),
    "team.info": Method(_team_info, "team:read", 3, (), ("team", "domain")),
    "chat.postMessage": Method(
        _chat_post,
        "chat:write",
        3,
        ("channel",),
        (
            *_message_arguments,
            "container_annotation",
            "metadata",
            "mrkdwn",
            "reply_broadcast",
            "unfurl_links",
            "unfurl_media",
        ),
    ),
    "chat.update": Method(
        _chat_update,
        "chat:write",
        3,
        ("channel", "ts"),
        (
            "text",
            "blocks",
            "attachments",
            "markdown_text",
            "as_user",
            "file_ids",
            "link_names",
            "metadata",
            "parse",
            "reply_broadcast",
            "unfurl_links",
            "unfurl_media",
        ),
    ),
    "chat.postEphemeral": Method(_chat_post_ephemeral, "chat:write", 4, ("channel", "user"), _message_arguments),
    "chat.delete": Method(_chat_delete, "chat:write", 3, ("channel", "ts"), ("as_user",)),
    "chat.getPermalink": Method(_chat_permalink, "", 4, ("channel", "message_ts")),
    "views.open": Method(_views_open, "", 4, ("trigger_id", "view"), ("interactivity_pointer",)),
    "views.push": Method(_views_push, "", 4, ("trigger_id", "view"), ("interactivity_pointer",)),
    "views.update": Method(_views_update, "", 4, ("view",), ("view_id", "external_id", "hash")),
    "views.publish": Method(_views_publish, "", 4, ("user_id", "view"), ("hash",)),
    "users.info": Method(_users_info, "users:read", 4, ("user",), ("include_locale",)),
    "users.list": Method(_users_list, "users:read", 2, (), ("cursor", "include_locale", "limit", "team_id")),
    "usergroups.list": Method(
        _usergroups_list, "usergroups:read", 2, (), ("include_count", "include_disabled", "include_users", "team_id")
    ),
    "usergroups.users.list": Method(
        _usergroups_users_list, "usergroups:read", 2, ("usergroup",), ("include_disabled", "team_id")
    ),
    "conversations.info": Method(_conversations_info, "", 3, ("channel",), ("include_locale", "include_num_members")),
    "conversations.list": Method(
        _conversations_list, "", 2, (), ("cursor", "exclude_archived", "limit", "team_id", "types")
    ),
    "conversations.open": Method(_conversations_open, "", 3, (), ("channel", "users", "return_im", "prevent_creation")),
    "conversations.join": Method(_conversations_join, "channels:join", 3, ("channel",)),
    "conversations.members": Method(_conversations_members, "", 4, ("channel",), ("cursor", "limit")),
    "reactions.add": Method(_reactions_add, "reactions:write", 3, ("channel", "name", "timestamp")),
    "files.getUploadURLExternal": Method(
        _files_get_upload_url, "files:write", 4, ("filename", "length"), ("alt_txt", "snippet_type")
    ),
    "files.completeUploadExternal": Method(
        _files_complete_upload,
        "files:write",
        4,
        ("files",),
        ("channel_id", "channels", "initial_comment", "blocks", "thread_ts"),
    ),
}

JSON_ARGUMENTS = {"blocks", "attachments", "view", "files", "metadata"}
BOOLEAN_ARGUMENTS = {
    "as_user",
    "exclude_archived",
    "include_disabled",
    "include_users",
    "link_names",
    "mrkdwn",
    "reply_broadcast",
    "unfurl_links",
    "unfurl_media",
}
