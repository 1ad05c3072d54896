"""Durations as people write and read them: `10m`, `1h30m`, `250ms`."""

import re

from bot.errors import UserError

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_LONGEST_S = 30 * 86400.0


def parse_duration(text: str) -> float:
    """Seconds of `10m`, `1h30m`, `90s`, `250ms`; units from large to small, each once, at most 30 days.

    Raises UserError that quotes the text and says what was expected.
    """
    wanted = text.strip().lower()
    position, total_s, last_unit_s = 0, 0.0, float("inf")
    while position < len(wanted):
        part = _PART.match(wanted, position)
        if part is None or _UNITS_S[part[2]] >= last_unit_s:
            raise _malformed(text)
        last_unit_s = _UNITS_S[part[2]]
        total_s += float(part[1]) * last_unit_s
        position = part.end()
    if not wanted:
        raise _malformed(text)
    if total_s > _LONGEST_S:
        raise UserError(f"`{text.strip()}` is too long: at most 30d is possible.", "For example `10m` or `1h30m`.")
    return round(total_s, 3)


def _malformed(text: str) -> UserError:
    return UserError(
        f"`{text.strip()}` is not a duration: expected a number with ms, s, m, h or d.", "For example `10m` or `1h30m`."
    )


def written(duration_s: float) -> str:
    """The shortest text that `parse_duration` reads back: `600.0` is `10m`, `5400.0` is `1h30m`."""
    rest_ms = round(duration_s * 1000)
    parts = []
    for unit in ("d", "h", "m", "s", "ms"):
        size_ms = round(_UNITS_S[unit] * 1000)
        count, rest_ms = divmod(rest_ms, size_ms)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def spoken(duration_s: float) -> str:
    """A duration for a sentence, at most two units, rounded: `10 min`, `1 h 5 min`, `250 ms`; never negative."""
    seconds = max(0.0, duration_s)
    if seconds < 1:
        return f"{round(seconds * 1000)} ms" if seconds else "0 s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return _two(whole, 60, "min", 1, "s")
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 1440:
        return _two(minutes, 60, "h", 1, "min")
    return _two(round(minutes / 60), 24, "d", 1, "h")


def _two(amount: int, size: int, unit: str, rest_size: int, rest_unit: str) -> str:
    count, rest = divmod(amount, size)
    tail = f" {rest // rest_size} {rest_unit}" if rest else ""
    return f"{count} {unit}{tail}"
