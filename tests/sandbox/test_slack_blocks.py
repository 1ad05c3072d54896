"""The stand-in is never kinder than slack_sdk's own validators, and takes what they take at the limits."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from slack_sdk.errors import SlackObjectFormationError
from slack_sdk.models.blocks import Block

from bot.sandbox.slack.blocks import completed, find_element, problems, view_problems, without_actions

LENGTHS = (0, 1, 30, 31, 75, 76, 100, 101, 150, 151, 255, 256, 300, 301, 2000, 2001, 3000, 3001, 12_000, 12_001)
COUNTS = (0, 1, 5, 6, 10, 11, 25, 26, 100, 101)


def plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": text}


def option(value: str) -> dict[str, Any]:
    return {"text": plain(value), "value": value}


def button(action_id: str) -> dict[str, Any]:
    texts = {name: plain("ok") for name in ("title", "text", "confirm", "deny")}
    return {
        "type": "button",
        "action_id": action_id,
        "text": plain("Go"),
        "value": "1",
        "style": "primary",
        "url": "https://example.com",
        "confirm": {**texts, "style": "danger"},
    }


BLOCKS: list[dict[str, Any]] = [
    {"type": "header", "text": plain("x"), "block_id": "b"},
    {"type": "section", "text": {"type": "mrkdwn", "text": "x"}, "fields": [plain("x")], "accessory": button("a")},
    {"type": "context", "elements": [plain("x"), {"type": "mrkdwn", "text": "x"}]},
    {"type": "image", "image_url": "https://example.com/x.png", "alt_text": "x", "title": plain("x")},
    {"type": "markdown", "text": "x"},
    {"type": "table", "rows": [[{"type": "raw_text", "text": "x"}]]},
    {"type": "task_card", "task_id": "1", "title": "x", "status": "pending"},
    {"type": "actions", "elements": [button("a"), {"type": "overflow", "action_id": "o", "options": [option("x")]}]},
    {
        "type": "actions",
        "elements": [{"type": "static_select", "action_id": "s", "placeholder": plain("x"), "options": [option("x")]}],
    },
    {
        "type": "input",
        "label": plain("x"),
        "hint": plain("x"),
        "element": {"type": "plain_text_input", "action_id": "t", "placeholder": plain("x")},
    },
]


def _in_list(put: Callable[[Any], Any], whole: list[Any], index: int) -> Callable[[Any], Any]:
    return lambda new: put([*whole[:index], new, *whole[index + 1 :]])


def _in_dict(put: Callable[[Any], Any], whole: dict[str, Any], name: str) -> Callable[[Any], Any]:
    return lambda new: put({**whole, name: new})


def mutations(block: Any, put: Callable[[Any], Any] = lambda whole: whole) -> Iterator[dict[str, Any]]:
    """The block with one of its strings at another length, or one of its lists at another count, each in turn."""
    if isinstance(block, str):
        for length in LENGTHS:
            longer = "https://" + "x" * (length - 8) if block.startswith("https://") and length > 8 else "x" * length
            yield put(longer)
    elif isinstance(block, list):
        for count in COUNTS:
            yield put([copy.deepcopy(block[index % len(block)]) for index in range(count)])
        for index, item in enumerate(block):
            yield from mutations(item, _in_list(put, block, index))
    elif isinstance(block, dict):
        for name, part in block.items():
            if name != "type":
                yield from mutations(part, _in_dict(put, block, name))


def refused_by_sdk(block: dict[str, Any]) -> bool:
    try:
        parsed = Block.parse(copy.deepcopy(block))
        assert parsed is not None
        parsed.to_dict()
    except SlackObjectFormationError:
        return True
    return False


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: str(block["type"]))
def test_what_the_sdk_refuses_is_refused(block: dict[str, Any]) -> None:
    """Whatever slack_sdk's validators say is over a limit, the stand-in refuses as well."""
    assert problems([block]) == []
    tried = [changed for changed in mutations(block) if refused_by_sdk(changed)]
    kinder = [changed for changed in tried if problems([changed]) == []]
    assert kinder == []
    assert tried, "no mutation was refused by the SDK: the test would show nothing"


def test_the_sdk_would_have_let_more_through() -> None:
    """The stand-in also refuses what the SDK does not look at: 51 blocks, and an unknown property."""
    assert problems([{"type": "divider"}] * 50) == []
    assert problems([{"type": "divider"}] * 51) == ["no more than 50 items allowed [json-pointer:/blocks]"]
    assert not refused_by_sdk({"type": "divider", "colour": "red"})
    assert problems([{"type": "divider", "colour": "red"}]) != []


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"title": plain("x" * 25)}, "must be less than 25 characters [json-pointer:/view/title/text]"),
        ({"private_metadata": "x" * 3001}, "must be less than 3001 characters [json-pointer:/view/private_metadata]"),
        ({"submit": None}, "must be an object [json-pointer:/view/submit]"),
        ({"blocks": [{"type": "divider"}] * 101}, "no more than 100 items allowed [json-pointer:/view/blocks]"),
        ({"type": "popup"}, "unsupported type: popup [json-pointer:/view/type]"),
    ],
)
def test_views_have_limits(changes: dict[str, Any], complaint: str) -> None:
    """A modal over one of Slack's limits is refused, where and why."""
    view = {"type": "modal", "title": plain("Why"), "submit": plain("Go"), "blocks": [{"type": "divider"}]}
    assert view_problems(view) == []
    assert view_problems({**view, **changes}) == [complaint]


def test_a_form_needs_a_way_to_send_it() -> None:
    """A modal with inputs and no submit button is refused."""
    view = {"type": "modal", "title": plain("Why"), "blocks": [BLOCKS[-1]]}
    assert view_problems(view) == ["missing required field: submit (the view has input blocks) [json-pointer:/view]"]


def test_ids_are_given_where_there_are_none() -> None:
    """Stored blocks have ids for every block and element, and keep those they came with."""
    given = [{"type": "actions", "elements": [{"type": "button", "text": plain("Go")}, button("mine")]}]
    (stored,) = completed(given, make_id=lambda: "made")
    assert stored["block_id"] == "made"
    assert [element["action_id"] for element in stored["elements"]] == ["made", "mine"]
    assert "block_id" not in given[0]
    assert find_element([stored], "mine", "made") == (stored, stored["elements"][1])
    assert find_element([stored], "mine", "other") is None


def test_broadcasts_keep_pictures_and_lose_what_can_be_clicked() -> None:
    """Without actions a card keeps its text and its pictures."""
    picture = {"type": "image", "image_url": "https://example.com/x.png", "alt_text": "x"}
    kept = without_actions(
        [
            {"type": "section", "text": plain("x"), "accessory": picture},
            {"type": "section", "text": plain("y"), "accessory": button("a")},
            {"type": "actions", "elements": [button("b")]},
        ]
    )
    assert kept == [
        {"type": "section", "text": plain("x"), "accessory": picture},
        {"type": "section", "text": plain("y")},
    ]
