"""Block Kit: which blocks Slack accepts in messages, modals and the home tab, and up to which size.

Figures: https://docs.slack.dev/reference/block-kit . Blocks that canary-bot has no use for (video, call, carousel and
the like) are refused as unsupported: the stand-in may be stricter than Slack, never kinder.
"""

import secrets
import string as alphabet
from collections.abc import Callable, Iterator
from typing import Any, Literal

from bot.sandbox.slack.schema import (
    Check,
    Complaints,
    boolean,
    both,
    by_type,
    choice,
    complain,
    integer,
    items,
    number,
    record,
    string,
    url,
)

Surface = Literal["message", "modal", "home"]
Json = dict[str, Any]

BLOCKS_LONGEST: dict[Surface, int] = {"message": 50, "modal": 100, "home": 100}
MARKDOWN_LONGEST = 12_000
TABLE_LONGEST = 10_000

TYPE = string(64)
ACTION_ID = string(255, 1)


def plain_text(longest: int) -> Check:
    """A `plain_text` object of 1 to `longest` characters."""
    return by_type({"plain_text": record({"type": TYPE, "text": string(longest, 1)}, {"emoji": boolean})})


def any_text(longest: int) -> Check:
    """A `plain_text` or `mrkdwn` object of 1 to `longest` characters."""
    return by_type(
        {
            "plain_text": record({"type": TYPE, "text": string(longest, 1)}, {"emoji": boolean}),
            "mrkdwn": record({"type": TYPE, "text": string(longest, 1)}, {"verbatim": boolean}),
        }
    )


def _exactly_one(*names: str) -> Check:
    def check(value: Any, at: str, complaints: Complaints) -> None:
        if isinstance(value, dict) and sum(name in value for name in names) != 1:
            complain(complaints, f"must provide exactly one of: {', '.join(names)}", at)

    return check


def _at_least_one(*names: str) -> Check:
    def check(value: Any, at: str, complaints: Complaints) -> None:
        if isinstance(value, dict) and not any(name in value for name in names):
            complain(complaints, f"must provide one of: {', '.join(names)}", at)

    return check


CONFIRM = record(
    {"title": plain_text(100), "text": any_text(300), "confirm": plain_text(30), "deny": plain_text(30)},
    {"style": choice("primary", "danger")},
)
OPTION_PARTS: dict[str, Check] = {"text": any_text(75), "value": string(150, 1)}
OPTION = record(OPTION_PARTS, {"description": any_text(75)})
OVERFLOW_OPTION = record({"text": plain_text(75), "value": string(150, 1)}, {"description": plain_text(75), "url": url})
OPTION_GROUP = record({"label": plain_text(75), "options": items(OPTION, 100)})

_placeholder = plain_text(150)
_focus: dict[str, Check] = {"focus_on_load": boolean}
_menu: dict[str, Check] = {"placeholder": _placeholder, "confirm": CONFIRM, "action_id": ACTION_ID, **_focus}
_static: dict[str, Check] = {"options": items(OPTION, 100), "option_groups": items(OPTION_GROUP, 100)}
_dispatch: Check = record({}, {"trigger_actions_on": items(choice("on_enter_pressed", "on_character_entered"), 2)})
_typing: dict[str, Check] = {
    "action_id": ACTION_ID,
    "placeholder": _placeholder,
    "dispatch_action_config": _dispatch,
    **_focus,
}

BUTTON = record(
    {"type": TYPE, "text": plain_text(75)},
    {
        "action_id": ACTION_ID,
        "url": url,
        "value": string(2000),
        "style": choice("primary", "danger"),
        "confirm": CONFIRM,
        "accessibility_label": string(75),
    },
)
OVERFLOW = record({"type": TYPE, "options": items(OVERFLOW_OPTION, 5)}, {"action_id": ACTION_ID, "confirm": CONFIRM})
STATIC_SELECT = both(
    record({"type": TYPE}, {**_menu, **_static, "initial_option": OPTION}), _exactly_one("options", "option_groups")
)
MULTI_STATIC_SELECT = both(
    record(
        {"type": TYPE},
        {**_menu, **_static, "initial_options": items(OPTION, 100), "max_selected_items": integer},
    ),
    _exactly_one("options", "option_groups"),
)
USERS_SELECT = record({"type": TYPE}, {**_menu, "initial_user": string()})
MULTI_USERS_SELECT = record(
    {"type": TYPE}, {**_menu, "initial_users": items(string(), 100), "max_selected_items": integer}
)
CHANNELS_SELECT = record({"type": TYPE}, {**_menu, "initial_channel": string(), "response_url_enabled": boolean})
CONVERSATIONS_SELECT = record(
    {"type": TYPE},
    {
        **_menu,
        "initial_conversation": string(),
        "default_to_current_conversation": boolean,
        "response_url_enabled": boolean,
        "filter": record({}, {"include": items(string(), 4), "exclude_bot_users": boolean}),
    },
)
_boxes: dict[str, Check] = {
    "action_id": ACTION_ID,
    "confirm": CONFIRM,
    **_focus,
}
CHECKBOXES = record({"type": TYPE, "options": items(OPTION, 10)}, {**_boxes, "initial_options": items(OPTION, 10)})
RADIO_BUTTONS = record({"type": TYPE, "options": items(OPTION, 10)}, {**_boxes, "initial_option": OPTION})
DATEPICKER = record({"type": TYPE}, {**_menu, "initial_date": string(10, 10)})
TIMEPICKER = record({"type": TYPE}, {**_menu, "initial_time": string(5, 5), "timezone": string()})
DATETIMEPICKER = record(
    {"type": TYPE}, {"action_id": ACTION_ID, "confirm": CONFIRM, "initial_date_time": integer, **_focus}
)
PLAIN_TEXT_INPUT = record(
    {"type": TYPE},
    {
        **_typing,
        "initial_value": string(3000),
        "multiline": boolean,
        "min_length": integer,
        "max_length": integer,
    },
)
NUMBER_INPUT = record(
    {"type": TYPE, "is_decimal_allowed": boolean},
    {**_typing, "initial_value": string(), "min_value": string(), "max_value": string()},
)
URL_INPUT = record({"type": TYPE}, {**_typing, "initial_value": url})
IMAGE_ELEMENT = both(
    record(
        {"type": TYPE, "alt_text": string(2000)},
        {"image_url": url, "slack_file": record({}, {"id": string(), "url": url})},
    ),
    _exactly_one("image_url", "slack_file"),
)

MENUS: dict[str, Check] = {
    "static_select": STATIC_SELECT,
    "multi_static_select": MULTI_STATIC_SELECT,
    "users_select": USERS_SELECT,
    "multi_users_select": MULTI_USERS_SELECT,
    "channels_select": CHANNELS_SELECT,
    "conversations_select": CONVERSATIONS_SELECT,
    "checkboxes": CHECKBOXES,
    "radio_buttons": RADIO_BUTTONS,
    "datepicker": DATEPICKER,
    "timepicker": TIMEPICKER,
}
ACTIONS: dict[str, Check] = {"button": BUTTON, "overflow": OVERFLOW, "datetimepicker": DATETIMEPICKER, **MENUS}
INPUTS: dict[str, Check] = {
    "plain_text_input": PLAIN_TEXT_INPUT,
    "number_input": NUMBER_INPUT,
    "url_text_input": URL_INPUT,
    "datetimepicker": DATETIMEPICKER,
    **MENUS,
}
ACCESSORIES: dict[str, Check] = {"image": IMAGE_ELEMENT, "button": BUTTON, "overflow": OVERFLOW, **MENUS}

_style = record({}, dict.fromkeys(("bold", "italic", "strike", "code", "underline", "highlight"), boolean))


def _part(**required: Check) -> Check:
    return record({"type": TYPE, **required}, {"style": _style})


RICH_PARTS = by_type(
    {
        "text": _part(text=string(None, 1)),
        "link": record({"type": TYPE, "url": string(3000, 1)}, {"text": string(), "unsafe": boolean, "style": _style}),
        "emoji": record({"type": TYPE, "name": string()}, {"unicode": string(), "skin_tone": integer, "style": _style}),
        "user": _part(user_id=string()),
        "usergroup": _part(usergroup_id=string()),
        "channel": _part(channel_id=string()),
        "broadcast": _part(range=choice("here", "channel", "everyone")),
        "date": record(
            {"type": TYPE, "timestamp": integer, "format": string()},
            {"url": url, "fallback": string(), "style": _style},
        ),
        "color": _part(value=string()),
        "team": _part(team_id=string()),
    }
)
RICH_SECTION = record({"type": TYPE, "elements": items(RICH_PARTS, 1000, 0)})
RICH_ELEMENTS: dict[str, Check] = {
    "rich_text_section": RICH_SECTION,
    "rich_text_list": record(
        {
            "type": TYPE,
            "style": choice("bullet", "ordered"),
            "elements": items(by_type({"rich_text_section": RICH_SECTION}), 1000, 0),
        },
        {"indent": integer, "offset": integer, "border": integer},
    ),
    "rich_text_preformatted": record(
        {"type": TYPE, "elements": items(RICH_PARTS, 1000, 0)}, {"border": integer, "language": string()}
    ),
    "rich_text_quote": record({"type": TYPE, "elements": items(RICH_PARTS, 1000, 0)}, {"border": integer}),
}
RICH_TEXT = record({"type": TYPE, "elements": items(by_type(RICH_ELEMENTS), 1000)}, {"block_id": string(255)})
RICH_VALUE = by_type({"rich_text": RICH_TEXT})

CELL = by_type(
    {
        "raw_text": record({"type": TYPE, "text": string(None, 1)}),
        "raw_number": record({"type": TYPE, "value": number, "text": string(None, 1)}),
        "rich_text": RICH_TEXT,
    }
)


def _column(value: Any, at: str, complaints: Complaints) -> None:
    if value is not None:
        record({}, {"align": choice("left", "center", "right"), "is_wrapped": boolean})(value, at, complaints)


TASK_CARD = record(
    {
        "type": TYPE,
        "task_id": string(255, 1),
        "title": string(None, 1),
        "status": choice("pending", "in_progress", "complete", "error"),
    },
    {
        "block_id": string(255),
        "details": RICH_VALUE,
        "output": RICH_VALUE,
        "sources": items(record({"type": choice("url"), "url": url, "text": string()}), 20, 0),
    },
)


def _block(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    return record({"type": TYPE, **required}, {"block_id": string(255), **(optional or {})})


MESSAGE_BLOCKS: dict[str, Check] = {
    "header": _block({"text": plain_text(150)}, {"level": integer}),
    "divider": _block({}),
    "section": both(
        _block(
            {},
            {
                "text": any_text(3000),
                "fields": items(any_text(2000), 10),
                "accessory": by_type(ACCESSORIES),
                "expand": boolean,
            },
        ),
        _at_least_one("text", "fields"),
    ),
    "context": _block(
        {
            "elements": items(
                by_type(
                    {
                        "image": IMAGE_ELEMENT,
                        "plain_text": any_text(2000),
                        "mrkdwn": any_text(2000),
                    }
                ),
                10,
            )
        }
    ),
    "actions": _block({"elements": items(by_type(ACTIONS), 25)}),
    "input": _block(
        {"label": plain_text(2000), "element": by_type(INPUTS)},
        {"hint": plain_text(2000), "optional": boolean, "dispatch_action": boolean},
    ),
    "image": both(
        _block(
            {"alt_text": string(2000)},
            {"image_url": url, "slack_file": record({}, {"id": string(), "url": url}), "title": plain_text(2000)},
        ),
        _exactly_one("image_url", "slack_file"),
    ),
    "rich_text": RICH_TEXT,
    "markdown": _block({"text": string(MARKDOWN_LONGEST, 1)}),
    "table": _block(
        {"rows": items(items(CELL, 20), 100)},
        {"column_settings": items(_column, 20)},
    ),
    "plan": _block({"title": string(None, 1)}, {"tasks": items(by_type({"task_card": TASK_CARD}), 50, 0)}),
    "task_card": TASK_CARD,
}
VIEW_BLOCKS: dict[str, Check] = {
    name: check for name, check in MESSAGE_BLOCKS.items() if name not in ("markdown", "table", "plan", "task_card")
}
ALERT = _block({"text": any_text(3000)}, {"level": choice("default", "info", "warning", "error", "success")})
BLOCKS: dict[Surface, dict[str, Check]] = {
    "message": MESSAGE_BLOCKS,
    "modal": {**VIEW_BLOCKS, "alert": ALERT},
    "home": VIEW_BLOCKS,
}

_view: dict[str, Check] = {
    "private_metadata": string(3000),
    "callback_id": string(255),
    "external_id": string(255),
}


def elements_of(block: Json) -> list[Json]:
    """The interactive elements of a block, in order, wherever the block keeps them."""
    found = list(block.get("elements") or []) if block.get("type") in ("actions", "context_actions") else []
    found += [block[place] for place in ("accessory", "element") if isinstance(block.get(place), dict)]
    return [element for element in found if isinstance(element, dict) and element.get("type") != "image"]


def problems(blocks: Any, surface: Surface = "message", at: str = "/blocks") -> list[str]:
    """Say everything Slack would object to in `blocks`; an empty list means it accepts them."""
    complaints: Complaints = []
    items(by_type(BLOCKS[surface]), BLOCKS_LONGEST[surface], 0)(blocks, at, complaints)
    if complaints:
        return complaints
    _check_ids(blocks, at, complaints)
    tables = [index for index, block in enumerate(blocks) if block["type"] == "table"]
    for index in tables[1:]:
        complain(complaints, "only one table allowed in a message", f"{at}/{index}")
    for index in tables:
        if sum(map(len, _strings(blocks[index]["rows"], "text"))) > TABLE_LONGEST:
            complain(complaints, f"table must have less than {TABLE_LONGEST + 1} characters", f"{at}/{index}/rows")
    if sum(len(block["text"]) for block in blocks if block["type"] == "markdown") > MARKDOWN_LONGEST:
        complain(complaints, f"markdown blocks must be less than {MARKDOWN_LONGEST + 1} characters together", at)
    return complaints


def _check_ids(blocks: list[Json], at: str, complaints: Complaints) -> None:
    seen_blocks: set[str] = set()
    for index, block in enumerate(blocks):
        block_id = block.get("block_id")
        if block_id and block_id in seen_blocks:
            complain(complaints, f"block_id already exists: {block_id}", f"{at}/{index}/block_id")
        seen_blocks.add(block_id or "")
        seen_actions: set[str] = set()
        for place, element in enumerate(elements_of(block)):
            action_id = element.get("action_id")
            if action_id and action_id in seen_actions:
                complain(complaints, f"action_id already exists: {action_id}", f"{at}/{index}/elements/{place}")
            seen_actions.add(action_id or "")


def _strings(value: Any, key: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, dict):
        for name, part in value.items():
            if name == key and isinstance(part, str):
                yield part
            else:
                yield from _strings(part, key)


def view_problems(view: Any) -> list[str]:
    """Say everything Slack would object to in a modal or home view."""
    complaints: Complaints = []
    kinds = {
        "modal": record(
            {"type": TYPE, "title": plain_text(24), "blocks": _anything},
            {
                **_view,
                "submit": plain_text(24),
                "close": plain_text(24),
                "clear_on_close": boolean,
                "notify_on_close": boolean,
                "submit_disabled": boolean,
            },
        ),
        "home": record({"type": TYPE, "blocks": _anything}, _view),
    }
    by_type(kinds)(view, "/view", complaints)
    if complaints:
        return complaints
    complaints += problems(view["blocks"], view["type"], "/view/blocks")
    needs_submit = any(isinstance(block, dict) and block.get("type") == "input" for block in view["blocks"] or ())
    if view["type"] == "modal" and needs_submit and "submit" not in view:
        complain(complaints, "missing required field: submit (the view has input blocks)", "/view")
    return complaints


def _anything(value: Any, at: str, complaints: Complaints) -> None:
    del value, at, complaints


def random_id(length: int = 5) -> str:
    """A short id as Slack makes them for blocks and actions."""
    return "".join(secrets.choice(alphabet.ascii_letters + alphabet.digits) for _ in range(length))


def completed(blocks: list[Json], make_id: Callable[[], str] = random_id) -> list[Json]:
    """The blocks as Slack stores them: every block has a `block_id`, every interactive element an `action_id`."""
    done = []
    for given in blocks:
        block = {**given, "block_id": given.get("block_id") or make_id()}
        if block["type"] == "actions":
            block["elements"] = [
                {**part, "action_id": part.get("action_id") or make_id()} for part in block["elements"]
            ]
        for place in ("accessory", "element"):
            if isinstance(block.get(place), dict) and block[place].get("type") != "image":
                block[place] = {**block[place], "action_id": block[place].get("action_id") or make_id()}
        done.append(block)
    return done


def without_actions(blocks: list[Json]) -> list[Json]:
    """The blocks as a reply that is also sent to the channel shows them: nothing in it can be clicked."""
    kept = []
    for block in blocks:
        if block["type"] in ("actions", "input"):
            continue
        if block.get("accessory", {}).get("type") not in (None, "image"):
            kept.append({name: part for name, part in block.items() if name != "accessory"})
        else:
            kept.append(block)
    return kept


def find_element(blocks: list[Json], action_id: str, block_id: str | None = None) -> tuple[Json, Json] | None:
    """The block and its element with this `action_id` (and `block_id` when given)."""
    for block in blocks:
        if block_id is not None and block.get("block_id") != block_id:
            continue
        for element in elements_of(block):
            if element.get("action_id") == action_id:
                return block, element
    return None
