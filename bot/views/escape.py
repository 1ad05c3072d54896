"""Text made safe for Slack: nothing a person or a cluster wrote may ping, link or break out of code.

Slack interprets `&`, `<` and `>` only (https://docs.slack.dev/messaging/formatting-message-text#escaping); mentions
are made here and nowhere else.
"""

import re
from datetime import UTC, datetime

_GROUP = re.compile(r"S[A-Z0-9]{2,}")
_HANDLE = re.compile(r"@[a-zA-Z0-9_.-]{1,80}")
_PERSON = re.compile(r"[UW][A-Z0-9]{2,}")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_FENCE = re.compile(r"`{2,}")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ESCAPED = str.maketrans(_ENTITIES)
NOTHING = "–"


def escape(text: str, limit: int = 3000) -> str:
    """`text` for mrkdwn, control and direction characters taken out, cut to `limit` characters after escaping.

    Single backticks stay, so that a sentence can quote what was typed; runs of them would open a block of code.
    """
    clean = _controlled(text)
    clean = _FENCE.sub(lambda run: "ˋ" * len(run[0]), clean) if "``" in clean else clean
    whole = clean.translate(_ESCAPED) if "&" in clean or "<" in clean or ">" in clean else clean
    if len(whole) <= limit:
        return whole
    pieces: list[str] = []
    room = limit
    for index, character in enumerate(clean):
        piece = _ENTITIES.get(character, character)
        last = index == len(clean) - 1
        if len(piece) > room - (0 if last else 1):
            pieces.append("…")
            break
        pieces.append(piece)
        room -= len(piece)
    return "".join(pieces)


def _controlled(text: str) -> str:
    """`text` without control and direction characters, which nothing printable is."""
    return text if text.isprintable() else _CONTROL.sub("", text)


def plain(text: str, limit: int) -> str:
    """`text` for a plain_text object or a table cell, where Slack interprets nothing; never empty."""
    clean = _controlled(text).strip()
    return (clean if len(clean) <= limit else clean[: limit - 1] + "…") or NOTHING


def code(text: str, limit: int = 300) -> str:
    """`text` in code font on one line; backticks become look-alikes, so that it cannot end early."""
    return f"`{escape(_unquoted(text), limit) or NOTHING}`"


def code_block(lines: str, limit: int = 2900) -> str:
    """Several lines in code font."""
    clean = "\n".join(_unquoted(line) for line in lines.split("\n"))
    return f"```\n{escape(clean, limit) or NOTHING}\n```"


def _unquoted(text: str) -> str:
    return " ".join(_controlled(text).replace("`", "ˋ").split("\n")).rstrip()


def stamp(at: float) -> str:
    """A moment for plain text and fallbacks: `2026-11-20 14:30 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def date(at: float, form: str = "{date_short_pretty} at {time}") -> str:
    """A moment (epoch seconds) that Slack shows in the reader's own time zone."""
    return f"<!date^{int(at)}^{form}|{stamp(at)}>"


def clock(at: float) -> str:
    """Only the time of day, with seconds, in the reader's own time zone."""
    return date(at, "{time_secs}")


def person(user_id: str, name: str = "") -> str:
    """A person as a mention when the id is one of Slack's, else by name."""
    return f"<@{user_id}>" if _PERSON.fullmatch(user_id) else escape(name or user_id or "somebody", 100)


def mention(who: str) -> str:
    """A group or person to be called: ids become mentions that ping, a handle `<!subteam^@release-leads>`, whose id the
    chat's adapter puts in; anything else stays text."""
    if _GROUP.fullmatch(who) or _HANDLE.fullmatch(who):
        return f"<!subteam^{who}>"
    return person(who, who) if who else ""
