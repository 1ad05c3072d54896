"""Block Kit's parts, each cut to what Slack takes (https://docs.slack.dev/reference/block-kit)."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bot.rollout.model import Rollout
from bot.views.escape import plain

Block = dict[str, Any]

BLOCKS = 50
TEXT = 2900
HEADER = 150
SECTION = 3000
FIELD = 2000
LABEL = 30
VALUE = 2000
CONFIRM_TEXT = 300
TABLE_ROWS = 100
TABLE_CHARACTERS = 9000
OPTION_VALUE = 150

NOTHING_SAID = "…"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A message as Slack takes it: `text` says it all on a lock screen, `blocks` are Block Kit."""

    text: str
    blocks: tuple[Block, ...] = ()


def rendered(text: str, blocks: Iterable[Block | None]) -> Rendered:
    """A message of the blocks that are there, at most 50; Slack takes none without text."""
    return Rendered(cut(text, TEXT).strip() or NOTHING_SAID, tuple(block for block in blocks if block)[:BLOCKS])


def cut(mrkdwn: str, limit: int) -> str:
    """Escaped text cut to `limit`, never inside an entity, a mention or a date."""
    if len(mrkdwn) <= limit:
        return mrkdwn
    kept = mrkdwn[: limit - 1]
    open_fence = kept.count("```") % 2
    kept = kept[: limit - 5] if open_fence else kept
    for opening, closing in (("<", ">"), ("&", ";")):
        begin = kept.rfind(opening)
        if begin > kept.rfind(closing):
            kept = kept[:begin]
    return kept + ("\n```" if open_fence else "") + "…"


def header(text: str) -> Block:
    """The first line, in large type."""
    return {"type": "header", "text": {"type": "plain_text", "text": plain(text, HEADER), "emoji": True}}


def section(mrkdwn: str) -> Block | None:
    """A paragraph; None when there is nothing to say."""
    return {"type": "section", "text": _mrkdwn(mrkdwn, SECTION)} if mrkdwn.strip() else None


def paragraphs(lines: Sequence[str], most: int = 40) -> list[Block | None]:
    """Many lines in as few sections as they fit into; those beyond `most` sections are counted in a last one."""
    sections: list[list[str]] = [[]]
    for index, line in enumerate(lines):
        if sum(len(one) + 1 for one in sections[-1]) + len(line) > TEXT:
            if len(sections) == most:
                sections.append([f"… and {len(lines) - index} more."])
                break
            sections.append([])
        sections[-1].append(cut(line, TEXT))
    return [section("\n".join(part)) for part in sections]


def fields(*pairs: tuple[str, str]) -> Block | None:
    """Titles above values, two beside each other; pairs without value are left out."""
    shown = [_mrkdwn(f"*{title}*\n{value}", FIELD) for title, value in pairs if value]
    return {"type": "section", "fields": shown[:10]} if shown else None


def context(*parts: str) -> Block | None:
    """Small print."""
    shown = [_mrkdwn(part, FIELD) for part in parts if part.strip()]
    return {"type": "context", "elements": shown[:10]} if shown else None


def actions(*elements: Block | None) -> Block | None:
    """Buttons in a row; None when there are none."""
    shown = [element for element in elements if element]
    return {"type": "actions", "elements": shown[:25]} if shown else None


def button(label: str, action_id: str, value: str, *, style: str = "", confirm: Block | None = None) -> Block:
    """A button; `style` is `primary`, `danger` or none."""
    element: Block = {
        "type": "button",
        "text": _plain(label, LABEL),
        "action_id": action_id,
        "value": value[:VALUE],
    }
    if style:
        element["style"] = style
    if confirm:
        element["confirm"] = confirm
    return element


def overflow(action_id: str, *options: tuple[str, str]) -> Block | None:
    """The menu behind three dots: labels and values."""
    shown = [{"text": _plain(label, 75), "value": value} for label, value in options if 0 < len(value) <= OPTION_VALUE]
    return {"type": "overflow", "action_id": action_id, "options": shown[:5]} if shown else None


def confirm(title: str, text: str, yes: str, *, style: str = "primary") -> Block:
    """The dialog before a button acts."""
    return {
        "title": _plain(title, 100),
        "text": _plain(text, CONFIRM_TEXT),
        "confirm": _plain(yes, LABEL),
        "deny": _plain("Not now", LABEL),
        "style": style,
    }


def pointer(rollout: Rollout, step: int | None = None) -> str:
    """What a button acts on: rollout, revision and step it was drawn for (the present one, or the one asked about)."""
    drawn_for = rollout.step if step is None else step
    return json.dumps({"rollout": rollout.id, "revision": rollout.revision, "step": drawn_for}, separators=(",", ":"))


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = (), count: int = 0
) -> Block | None:
    """A table; columns in `right` are right-aligned. Rows that do not fit, or are not among `rows` although there are
    `count`, are counted in a last one."""
    if not rows:
        return None
    numbers = frozenset(right)
    shown: list[list[Block]] = [_row(heads)]
    room = TABLE_CHARACTERS - sum(map(len, heads))
    count = max(count, len(rows))
    for index, row in enumerate(rows):
        cells = [plain(cell, 200) for cell in row]
        room -= sum(map(len, cells))
        last = len(shown) == TABLE_ROWS - 1 or (index == len(rows) - 1 and count > len(rows))
        if last or room < 0:
            shown.append(_row([f"and {count - index} more", *[""] * (len(heads) - 1)]))
            break
        shown.append(_row(cells))
    columns = [{"align": "right" if index in numbers else "left"} for index in range(len(heads))]
    return {"type": "table", "rows": shown, "column_settings": columns}


def _row(cells: Sequence[str]) -> list[Block]:
    return [{"type": "raw_text", "text": plain(cell, 200)} for cell in cells]


def _mrkdwn(text: str, limit: int) -> Block:
    return {"type": "mrkdwn", "text": cut(text, limit)}


def _plain(text: str, limit: int) -> Block:
    return {"type": "plain_text", "text": plain(text, limit), "emoji": True}
