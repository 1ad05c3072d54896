"""Numbers as people read them."""


def percent(fraction: float) -> str:
    """`0.0123` as `1.23%`; two digits at the least, no trailing zeros."""
    value = 100 * fraction
    if value and abs(value) < 0.01:
        return "under 0.01%"
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return text.rstrip("0").rstrip(".") + "%"


def milliseconds(value: float) -> str:
    """`250 ms`, `1.2 s`."""
    if value >= 10_000:
        return f"{value / 1000:.0f} s"
    if value >= 1000:
        text = f"{value / 1000:.2f}".rstrip("0").rstrip(".")
        return f"{text} s"
    return f"{value:.0f} ms" if value >= 10 else f"{value:.1f} ms".replace(".0 ms", " ms")


def number(value: float) -> str:
    """Up to four significant digits, without exponent where that can be read."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def requests(count: float) -> str:
    """`1 request`, `1,234 requests`."""
    rounded = round(count)
    return f"{rounded:,} request{'' if rounded == 1 else 's'}"


def duration(seconds: float) -> str:
    """`42 s`, `9 min`, `1 h 5 min`."""
    whole = max(0, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"
