"""What can be made to go wrong with Slack, through `PUT /_sandbox/faults`."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Faults:
    """Counts are numbers of Web API calls still to be hit; -1 is until further notice.

    rate_limited: answered 429 with `Retry-After: retry_after_s`. errors: answered 500. lose_reply: done, but the
    connection is cut without an answer. slow_s: every call waits so long. duplicate: clicks and events are delivered
    twice, with "all" commands too. disconnect: all sockets are asked to reconnect, once. offline: no calls, no sockets.
    """

    rate_limited: int = 0
    retry_after_s: int = 1
    errors: int = 0
    lose_reply: int = 0
    slow_s: float = 0.0
    duplicate: bool | str = False
    disconnect: bool = False
    offline: bool = False

    def merged(self, changes: dict[str, Any]) -> "Faults":
        """With these changes; None puts a key back to its default. Unknown keys and wrong types are ValueErrors."""
        defaults = Faults()
        kinds = {each.name: type(getattr(defaults, each.name)) for each in fields(Faults)}
        values: dict[str, Any] = {}
        for name, given in changes.items():
            value = given
            if name not in kinds:
                raise ValueError(f"no fault {name!r}; there are {', '.join(kinds)}")
            if given is None:
                value = getattr(defaults, name)
            elif kinds[name] is int and isinstance(value, bool):
                value = -1 if value else 0
            elif kinds[name] is bool and not isinstance(value, bool) and not (name == "duplicate" and value == "all"):
                raise ValueError(f"{name} must be true or false")
            elif kinds[name] in (int, float) and not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number")
            values[name] = value
        return replace(self, **values)

    def spend(self, name: str) -> "Faults":
        """With one fewer of a counted fault."""
        left = getattr(self, name)
        return replace(self, **{name: left - 1}) if left > 0 else self

    def as_json(self) -> dict[str, Any]:
        """All keys with their values."""
        return asdict(self)
