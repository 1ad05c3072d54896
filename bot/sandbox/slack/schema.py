"""Small checks that say what is wrong with a JSON value and where, in the words Slack uses.

A check is called with the value, its JSON pointer and the list that collects complaints.
"""

from collections.abc import Callable, Mapping
from typing import Any

Complaints = list[str]
Check = Callable[[Any, str, Complaints], None]


def complain(complaints: Complaints, problem: str, at: str) -> None:
    """Add one complaint in Slack's form: `problem [json-pointer:/blocks/0/text]`."""
    complaints.append(f"{problem} [json-pointer:{at}]")


def string(longest: int | None = None, shortest: int = 0) -> Check:
    """A string of `shortest` to `longest` characters."""

    def check(value: Any, at: str, complaints: Complaints) -> None:
        if not isinstance(value, str):
            complain(complaints, "must be a string", at)
        elif longest is not None and len(value) > longest:
            complain(complaints, f"must be less than {longest + 1} characters", at)
        elif len(value) < shortest:
            complain(complaints, f"must be more than {shortest - 1} characters", at)

    return check


def boolean(value: Any, at: str, complaints: Complaints) -> None:
    """True or false."""
    if not isinstance(value, bool):
        complain(complaints, "must be a boolean", at)


def integer(value: Any, at: str, complaints: Complaints) -> None:
    """A whole number."""
    if not isinstance(value, int) or isinstance(value, bool):
        complain(complaints, "must be an integer", at)


def number(value: Any, at: str, complaints: Complaints) -> None:
    """Any number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        complain(complaints, "must be a number", at)


def url(value: Any, at: str, complaints: Complaints) -> None:
    """An absolute http or https address of at most 3000 characters."""
    string(3000, 1)(value, at, complaints)
    if isinstance(value, str) and not value.startswith(("http://", "https://")):
        complain(complaints, "invalid url", at)


def choice(*allowed: str) -> Check:
    """One of the given strings."""

    def check(value: Any, at: str, complaints: Complaints) -> None:
        if value not in allowed:
            complain(complaints, f"value must be one of: {', '.join(allowed)}", at)

    return check


def items(check_item: Check, longest: int, shortest: int = 1) -> Check:
    """A list of `shortest` to `longest` values that each pass `check_item`."""

    def check(value: Any, at: str, complaints: Complaints) -> None:
        if not isinstance(value, list):
            complain(complaints, "must be an array", at)
            return
        if len(value) > longest:
            complain(complaints, f"no more than {longest} items allowed", at)
        if len(value) < shortest:
            complain(complaints, f"must provide at least {shortest} item{'s' if shortest > 1 else ''}", at)
        for index, item in enumerate(value):
            check_item(item, f"{at}/{index}", complaints)

    return check


def record(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with all `required` keys, any of the `optional` ones and no others."""
    known = {**required, **(optional or {})}

    def check(value: Any, at: str, complaints: Complaints) -> None:
        if not isinstance(value, dict):
            complain(complaints, "must be an object", at)
            return
        for name in required:
            if name not in value:
                complain(complaints, f"missing required field: {name}", at)
        for name, part in value.items():
            if name not in known:
                complain(complaints, f"invalid additional property: {name}", at)
            else:
                known[name](part, f"{at}/{name}", complaints)

    return check


def by_type(kinds: Mapping[str, Check]) -> Check:
    """An object whose `type` picks the check to use."""

    def check(value: Any, at: str, complaints: Complaints) -> None:
        if not isinstance(value, dict):
            complain(complaints, "must be an object", at)
        elif value.get("type") not in kinds:
            complain(complaints, f"unsupported type: {value.get('type')}", f"{at}/type")
        else:
            kinds[value["type"]](value, at, complaints)

    return check


def both(*checks: Check) -> Check:
    """All of the given checks."""

    def check(value: Any, at: str, complaints: Complaints) -> None:
        for each in checks:
            each(value, at, complaints)

    return check
