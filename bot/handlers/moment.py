"""Times of day as people type them, in their own time zone."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from bot.errors import UserError

_CLOCK = re.compile(r"(\d{1,2}):(\d{2})")
FARTHEST_S = 30 * 86400.0
EXPECTED = "a time like `14:30` (your time zone) or `2026-11-20T14:30`"


def is_moment(text: str) -> bool:
    """Whether the text has the form of a time; whether it exists is told by `moment`."""
    if _CLOCK.fullmatch(text):
        hours, minutes = text.split(":")
        return int(hours) < 24 and int(minutes) < 60
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return "T" in text.upper()


def moment(text: str, now: float, timezone: str) -> float:
    """Epoch seconds of `14:30` (its next occurrence) or `2026-11-20T14:30`, read in `timezone` unless it has its own.

    Raises UserError for a time that is past or more than 30 days away. An unknown time zone is read as UTC.
    """
    zone = _zone(timezone)
    here = datetime.fromtimestamp(now, zone)
    clock = _CLOCK.fullmatch(text)
    if clock:
        wanted = here.replace(hour=int(clock[1]), minute=int(clock[2]), second=0, microsecond=0, fold=0)
        if wanted.timestamp() <= now:
            wanted = (wanted.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=zone)
    else:
        wanted = datetime.fromisoformat(text)
        wanted = wanted if wanted.tzinfo else wanted.replace(tzinfo=zone)
    at = wanted.timestamp()
    if at <= now:
        raise UserError(f"`{text}` is past. Nothing was started.", f"It is {here:%Y-%m-%dT%H:%M} for you now.")
    if at - now > FARTHEST_S:
        raise UserError(f"`{text}` is more than 30 days away. Nothing was started.", "Give a nearer time.")
    return at


def _zone(timezone: str) -> tzinfo:
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC
