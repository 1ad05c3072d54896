"""What a person does in Slack: commands, mentions, clicks, forms. Used by the page, the demo's story and tests."""

import asyncio
import re
import secrets
import time
from typing import Any

from bot.sandbox.slack.blocks import Json, find_element, view_problems
from bot.sandbox.slack.deliver import Delivery
from bot.sandbox.slack.sockets import Ack
from bot.sandbox.slack.web import answer_interaction
from bot.sandbox.slack.workspace import (
    APP_ID,
    BOT_USER,
    TEAM_DOMAIN,
    TEAM_ID,
    ApiError,
    Channel,
    Message,
    User,
    View,
    Workspace,
)

VERIFICATION_TOKEN = "sandbox-verification-token"
COMMAND = "/canary"


class People:
    """The human side of the workspace."""

    def __init__(self, world: Workspace, delivery: Delivery) -> None:
        self.world = world
        self.delivery = delivery
        self.base_url = ""
        self.app_scopes: frozenset[str] = frozenset()

    async def command(self, act: Json) -> Json:
        """Type a slash command: `{user, channel, text, thread_ts?, wait_s?}`."""
        user, channel = self._in_channel(act)
        typed = str(act["text"]).strip()
        if thread_ts := act.get("thread_ts"):
            said = f"{typed.split(' ')[0]} is not supported in threads. Sorry!"
            return self._refuse(user, channel, said, thread_ts=str(thread_ts))
        command, _, text = typed.partition(" ")
        if command != COMMAND or "commands" not in self.app_scopes:
            return self._refuse(user, channel, f"{command} is not a valid command.")
        path = self.world.issue_response_url("commands", channel.id, user.id, None)
        payload = {
            "token": VERIFICATION_TOKEN,
            "team_id": TEAM_ID,
            "team_domain": TEAM_DOMAIN,
            "channel_id": channel.id,
            "channel_name": "directmessage" if channel.person else channel.name,
            "user_id": user.id,
            "user_name": user.name,
            "command": command,
            "text": _escape(text.strip()),
            "api_app_id": APP_ID,
            "is_enterprise_install": "false",
            "response_url": self.base_url + path,
            "trigger_id": self.world.issue_trigger(user.id),
        }
        since = self.world.next_ts()
        ack = await self.delivery.send("slash_commands", payload)
        if ack.error:
            return self._refuse(user, channel, f'{command} failed with the error "{ack.error}"', ack)
        error = self._answer_of_ack(ack, path)
        if error:
            return self._refuse(user, channel, f'{command} failed with the error "{error}"', ack)
        return await self._outcome(user, ack, since, act)

    def _answer_of_ack(self, ack: Ack, path: str) -> str | None:
        """Show what the acknowledgement of a command said; the error when Slack would not show it."""
        body = {"text": ack.body} if isinstance(ack.body, str) else ack.body
        if not body:
            return None
        try:
            answer_interaction(self.world, self.world.response_urls[path.removeprefix("/")], body)
        except ApiError as refusal:
            return refusal.code
        return None

    async def message(self, act: Json) -> Json:
        """Write a message: `{user, channel, text, thread_ts?, wait_s?}`; mentions and direct messages reach the bot."""
        user, channel = self._in_channel(act)
        text = self._with_mentions(str(act["text"]))
        thread_ts = act.get("thread_ts")
        if thread_ts is not None and (channel.id, thread_ts) not in self.world.messages:
            raise ApiError("thread_not_found")
        since = self.world.next_ts()
        message = self.world.post(Message(channel.id, self.world.next_ts(), user.id, text, [], thread_ts=thread_ts))
        event: Json = {
            "user": user.id,
            "ts": message.ts,
            "client_msg_id": secrets.token_hex(16),
            "text": text,
            "team": user.team_id,
            "channel": channel.id,
            "event_ts": message.ts,
            "blocks": [
                {
                    "type": "rich_text",
                    "block_id": "typed",
                    "elements": [{"type": "rich_text_section", "elements": [{"type": "text", "text": act["text"]}]}],
                }
            ],
        }
        if thread_ts:
            event |= {"thread_ts": thread_ts, "parent_user_id": self.world.messages[channel.id, thread_ts].user}
        if channel.person:
            if "im:history" in self.app_scopes:
                self._event({"type": "message", "channel_type": "im", **event})
        elif f"<@{BOT_USER}>" in text:
            if BOT_USER not in channel.members:
                self.world.say_privately(user.id, channel.id, "Canary is not in this channel. Invite it to go on.")
            elif "app_mentions:read" in self.app_scopes:
                self._event({"type": "app_mention", **event})
        return await self._outcome(user, Ack(None, 0.0), since, act, posted=message)

    async def mention(self, act: Json) -> Json:
        """Write a message that begins with a mention of the bot."""
        text = str(act["text"])
        return await self.message({**act, "text": text if BOT_USER in text else f"<@{BOT_USER}> {text}"})

    async def direct(self, act: Json) -> Json:
        """Write to the bot directly: `{user, text}`."""
        return await self.message({**act, "channel": self.world.direct(str(act["user"])).id})

    async def home(self, act: Json) -> Json:
        """Open the bot's home tab: `{user}`."""
        user = self.world.person(str(act["user"]))
        channel = self.world.direct(user.id)
        event: Json = {"type": "app_home_opened", "user": user.id, "channel": channel.id, "tab": "home"}
        if user.id in self.world.homes:
            event["view"] = self.world.homes[user.id].as_json()
        self._event({**event, "event_ts": self.world.next_ts()})
        return {"ok": True}

    def _event(self, event: Json) -> None:
        self.delivery.send_event(
            {
                "token": VERIFICATION_TOKEN,
                "team_id": TEAM_ID,
                "context_team_id": TEAM_ID,
                "context_enterprise_id": None,
                "api_app_id": APP_ID,
                "event": event,
                "type": "event_callback",
                "event_id": f"Ev0{secrets.token_hex(5).upper()}",
                "event_time": int(time.time()),
                "authorizations": [
                    {
                        "enterprise_id": None,
                        "team_id": TEAM_ID,
                        "user_id": BOT_USER,
                        "is_bot": True,
                        "is_enterprise_install": False,
                    }
                ],
                "is_ext_shared_channel": False,
                "event_context": secrets.token_hex(8),
            }
        )

    async def click(self, act: Json) -> Json:
        """Use a button, menu or other element of a message, of a modal or of the home tab.

        `{user, channel, ts, action_id, block_id?, value?, selected_option?, stale?, state?, wait_s?}`, or `view_id`
        in place of channel and ts. The element has to be there now, unless `stale` asks for an older version.
        """
        since = self.world.next_ts()
        if act.get("view_id"):
            return await self._click_in_view(act, since)
        user, channel = self._in_channel(act)
        message = self.world.messages.get((channel.id, str(act["ts"])))
        if message is None or message.ephemeral_to not in (None, user.id):
            raise ApiError("message_not_found")
        versions = [message.blocks, *(old.blocks for old in reversed(message.history))]
        shown = versions[1:] if act.get("stale") else versions[:1]
        found = None
        for blocks in shown:
            found = find_element(blocks, str(act["action_id"]), act.get("block_id"))
            if found:
                break
        if found is None:
            raise ApiError("no_such_action", f"no {act['action_id']} in this message now")
        block, element = found
        path = self.world.issue_response_url("actions", channel.id, user.id, message, message.thread_ts)
        container: Json = {
            "type": "message",
            "message_ts": message.ts,
            "channel_id": channel.id,
            "is_ephemeral": message.ephemeral_to is not None,
        }
        if message.thread_ts:
            container["thread_ts"] = message.thread_ts
        payload = self._interaction("block_actions", user) | {
            "container": container,
            "channel": {"id": channel.id, "name": "directmessage" if channel.person else channel.name},
            "state": {"values": act.get("state") or {}},
            "response_url": self.base_url + path,
            "actions": [_action(block, element, act, self.world.next_ts())],
        }
        if message.ephemeral_to is None:
            payload["message"] = {**message.as_json(), "blocks": blocks}
        ack = await self.delivery.send("interactive", payload, accepts=False)
        if ack.error:
            self.world.publish("notice", {"user": user.id, "channel": channel.id, "text": ack.error})
        return await self._outcome(user, ack, since, act)

    async def _click_in_view(self, act: Json, since: str) -> Json:
        user = self.world.person(str(act["user"]))
        view = self._own_view(user, str(act["view_id"]))
        found = find_element(view.content["blocks"], str(act["action_id"]), act.get("block_id"))
        if found is None:
            raise ApiError("no_such_action")
        view.values |= act.get("state") or {}
        payload = self._interaction("block_actions", user) | {
            "container": {"type": "view", "view_id": view.id},
            "view": view.as_json(),
            "actions": [_action(*found, act, self.world.next_ts())],
        }
        return await self._outcome(user, await self.delivery.send("interactive", payload, accepts=False), since, act)

    async def submit(self, act: Json) -> Json:
        """Submit the top modal: `{user, view_id, values: {block_id: {action_id: state or text}}, wait_s?}`."""
        user = self.world.person(str(act["user"]))
        view = self._own_view(user, str(act["view_id"]))
        values, missing = _filled(view.content["blocks"], act.get("values") or {})
        if missing:
            self.world.view_errors(view, missing)
            return {"ok": False, "error": "incomplete", "errors": missing}
        view.values, view.errors = values, {}
        payload = self._interaction("view_submission", user) | {"view": view.as_json(), "response_urls": []}
        since = self.world.next_ts()
        ack = await self.delivery.send("interactive", payload)
        if ack.error:
            text = "We had some trouble connecting. Try again?"
            self.world.view_errors(view, {"": text})
            return {"ok": False, "error": ack.error, "ack_ms": ack.ms, "errors": {"": text}}
        try:
            self._after_submit(view, ack.body or {})
        except ApiError as refusal:
            self.world.view_errors(view, {"": "We had some trouble connecting. Try again?"})
            return {"ok": False, "error": refusal.code, "ack_ms": ack.ms}
        if view.errors:
            return {"ok": False, "error": "errors", "ack_ms": ack.ms, "errors": view.errors}
        return await self._outcome(user, ack, since, act)

    def _after_submit(self, view: View, body: Json) -> None:
        match body.get("response_action"):
            case None:
                self.world.close_view(view)
            case "clear":
                self.world.close_views(view.user)
            case "errors":
                errors = body.get("errors") or {}
                known = {block["block_id"] for block in view.content["blocks"] if block["type"] == "input"}
                if not errors or not set(errors) <= known:
                    raise ApiError("invalid_errors")
                self.world.view_errors(view, errors)
            case "update" | "push" as way:
                if found := view_problems(body.get("view")):
                    raise ApiError("invalid_view", *found)
                if way == "update":
                    self.world.change_view(view, body["view"])
                else:
                    self.world.open_view(view.user, body["view"], on_top=True)
            case _:
                raise ApiError("invalid_response_action")

    async def close(self, act: Json) -> Json:
        """Close the top modal: `{user, view_id, clear?}`."""
        user = self.world.person(str(act["user"]))
        view = self._own_view(user, str(act["view_id"]))
        clear = bool(act.get("clear") or view.content.get("clear_on_close"))
        payload = self._interaction("view_closed", user) | {"view": view.as_json(), "is_cleared": clear}
        del payload["trigger_id"]
        if clear:
            self.world.close_views(user.id)
        else:
            self.world.close_view(view)
        if view.content.get("notify_on_close"):
            ack = await self.delivery.send("interactive", payload, accepts=False)
            return {"ok": ack.error is None, "error": ack.error, "ack_ms": ack.ms}
        return {"ok": True}

    def _own_view(self, user: User, view_id: str) -> View:
        view = self.world.views.get(view_id) or self.world.homes.get(user.id)
        if view is None or view.id != view_id or view.user != user.id:
            raise ApiError("view_not_found")
        stack = self.world.stacks.get(user.id, [])
        if view_id in stack and stack[-1] != view_id:
            raise ApiError("view_not_on_top")
        return view

    def _in_channel(self, act: Json) -> tuple[User, Channel]:
        user = self.world.person(str(act["user"]))
        wanted = str(act["channel"])
        if wanted == f"D0{user.id[2:]}":
            return user, self.world.direct(user.id)
        for channel in self.world.channels.values():
            if wanted == channel.id or (channel.person is None and wanted.removeprefix("#") == channel.name):
                if user.id not in channel.members:
                    raise ApiError("not_in_channel")
                return user, channel
        raise ApiError("channel_not_found")

    def _interaction(self, kind: str, user: User) -> Json:
        return {
            "type": kind,
            "team": {"id": TEAM_ID, "domain": TEAM_DOMAIN},
            "user": {"id": user.id, "username": user.name, "name": user.name, "team_id": user.team_id},
            "api_app_id": APP_ID,
            "token": VERIFICATION_TOKEN,
            "enterprise": None,
            "is_enterprise_install": False,
            "trigger_id": self.world.issue_trigger(user.id),
        }

    def _refuse(
        self, user: User, channel: Channel, text: str, ack: Ack | None = None, thread_ts: str | None = None
    ) -> Json:
        said = self.world.say_privately(user.id, channel.id, text, thread_ts)
        return {
            "ok": False,
            "error": (ack.error if ack else None) or "refused",
            "ack_ms": ack.ms if ack else None,
            "ephemeral": [said.as_state()],
            "view_id": None,
        }

    async def _outcome(self, user: User, ack: Ack, since: str, act: Json, posted: Message | None = None) -> Json:
        """What came of it: private answers and the modal opened since, waiting up to `wait_s` for the first."""
        deadline = time.monotonic() + float(act.get("wait_s") or 0)
        changes = self.world.subscribe()
        try:
            while True:
                private = [
                    message.as_state()
                    for message in self.world.messages.values()
                    if message.ephemeral_to == user.id and message.ts > since
                ]
                stack = self.world.stacks.get(user.id)
                left_s = deadline - time.monotonic()
                if private or stack or left_s <= 0:
                    break
                try:
                    await asyncio.wait_for(changes.get(), left_s)
                except TimeoutError:
                    continue
        finally:
            self.world.unsubscribe(changes)
        outcome: Json = {
            "ok": ack.error is None,
            "error": ack.error,
            "ack_ms": ack.ms,
            "ephemeral": private,
            "view_id": stack[-1] if stack else None,
        }
        if posted is not None:
            outcome |= {"ts": posted.ts, "channel": posted.channel}
        return outcome

    def _with_mentions(self, typed: str) -> str:
        """The text as Slack stores it: escaped, with names typed after @ and # turned into mentions."""
        text = re.sub(r"&lt;([@#][A-Z0-9]+(?:\|[^&]*)?)&gt;", r"<\1>", _escape(typed))
        names = {f"@{user.name}": f"<@{user.id}>" for user in self.world.users.values()}
        names |= {f"@{group.handle}": f"<!subteam^{group.id}>" for group in self.world.groups.values()}
        names |= {f"#{room.name}": f"<#{room.id}|{room.name}>" for room in self.world.channels.values() if room.name}
        return re.sub(r"(?<![\w<])[@#][a-z][a-z0-9_-]*", lambda found: names.get(found[0], found[0]), text)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _action(block: Json, element: Json, act: Json, action_ts: str) -> Json:
    """The entry of `actions` for this element, with what the person chose."""
    action: Json = {
        "action_id": element["action_id"],
        "block_id": block["block_id"],
        "type": element["type"],
        "action_ts": action_ts,
    }
    for name in ("text", "value", "style"):
        if element["type"] == "button" and name in element:
            action[name] = element[name]
    if element["type"] == "button" and "value" in act and act["value"] != element.get("value"):
        raise ApiError("no_such_action", "the button has another value now")
    if element["type"] in ("overflow", "static_select", "radio_buttons"):
        options = list(element.get("options") or [])
        options += [option for group in element.get("option_groups") or [] for option in group["options"]]
        wanted = act.get("selected_option")
        value = wanted.get("value") if isinstance(wanted, dict) else wanted
        chosen = next((option for option in options if option["value"] == value), None)
        if chosen is None:
            raise ApiError("no_such_option", f"there are {', '.join(option['value'] for option in options)}")
        action["selected_option"] = chosen
    elif element["type"] != "button":
        action |= {name: part for name, part in act.items() if name.startswith("selected_")}
    return action


_STATE_KEY = {
    "plain_text_input": "value",
    "number_input": "value",
    "url_text_input": "value",
    "static_select": "selected_option",
    "radio_buttons": "selected_option",
    "checkboxes": "selected_options",
    "multi_static_select": "selected_options",
    "users_select": "selected_user",
    "multi_users_select": "selected_users",
    "channels_select": "selected_channel",
    "conversations_select": "selected_conversation",
    "datepicker": "selected_date",
    "timepicker": "selected_time",
    "datetimepicker": "selected_date_time",
}


def _filled(blocks: list[Json], given: Json) -> tuple[Json, dict[str, str]]:
    """The state of a form from what was filled in, and what is missing in required inputs, by block id."""
    values: Json = {}
    missing: dict[str, str] = {}
    for block in blocks:
        elements = [block["element"]] if block["type"] == "input" else []
        if block["type"] in ("section", "actions"):
            elements = [*block.get("elements", []), *([block["accessory"]] if "accessory" in block else [])]
        for element in elements:
            kind = element["type"]
            if kind not in _STATE_KEY:
                continue
            entry = _state_of(element, given.get(block["block_id"], {}).get(element["action_id"]))
            values.setdefault(block["block_id"], {})[element["action_id"]] = entry
            if block["type"] == "input" and not block.get("optional") and entry[_STATE_KEY[kind]] in (None, "", []):
                missing[block["block_id"]] = "Please complete this required field."
    return values, missing


def _state_of(element: Json, filled: Any) -> Json:
    """One entry of a view's state; `filled` may be the plain value, an option's value or the whole entry."""
    kind, key = element["type"], _STATE_KEY[element["type"]]
    if isinstance(filled, dict) and key in filled:
        filled = filled[key]
    if filled is None:
        initial = "initial_" + {"value": "value"}.get(key, key.removeprefix("selected_"))
        filled = element.get(initial)
    options = list(element.get("options") or [])
    options += [option for group in element.get("option_groups") or [] for option in group["options"]]

    def option(value: Any) -> Any:
        wanted = value.get("value") if isinstance(value, dict) else value
        found = next((each for each in options if each["value"] == wanted), None)
        if found is None and wanted is not None:
            raise ApiError("no_such_option", f"there are {', '.join(each['value'] for each in options)}")
        return found

    if key == "selected_option":
        filled = option(filled)
    elif key == "selected_options":
        filled = [option(each) for each in filled or []]
    return {"type": kind, key: filled}
