"""The persisted form of values: JSON with a schema number, read strictly, migrated from older schemas.

Works for every frozen dataclass made of strings, numbers, enums, tuples, optionals and further such dataclasses.
Fields at their default are left out, so a record stays small and an added field with a default needs no migration.
"""

import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from bot.errors import Unreadable
from bot.rollout.effects import Audit, Message
from bot.rollout.events import Request
from bot.rollout.model import Freeze, Rollout

SCHEMA = 1
_NAME_CHARS = 24

Value = TypeVar("Value")
Raw = dict[str, Any]
_Encode = Callable[[Any], Any]
_Decode = Callable[[Any], Any]

MIGRATIONS: Mapping[tuple[str, int], Callable[[Raw], Raw]] = {}
"""(kind, schema) -> how its raw value becomes that of the next schema; a kind without an entry did not change."""


def dump(value: object) -> str:
    """One value as a line of JSON: `{"schema", "kind", "value"}`. Raises TypeError for what is no known value.

    Halves of characters (lone surrogates), which JSON can carry into any name or reason, become `?`: no store takes
    them, and a rollout that cannot be saved cannot go on.
    """
    cls: Any = type(value)
    text = json.dumps(
        {"schema": SCHEMA, "kind": cls.__name__, "value": _encoder(cls)(value)},
        ensure_ascii=False,
        separators=(",", ":"),
    )
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def load(cls: type[Value], text: str | bytes) -> Value:
    """Read a value back; raises Unreadable for another kind, unknown schema, unknown or missing fields, wrong types."""
    wanted: Any = cls
    try:
        envelope = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"not a record: {error}") from error
    if not isinstance(envelope, dict) or envelope.keys() != {"schema", "kind", "value"}:
        raise Unreadable("not a record: expected schema, kind and value")
    schema, kind, raw = envelope["schema"], envelope["kind"], envelope["value"]
    if kind != cls.__name__:
        raise Unreadable(f"a record of {kind!r}, expected {cls.__name__}")
    if type(schema) is not int or not 1 <= schema <= SCHEMA:
        raise Unreadable(f"schema {schema!r} is not known, this version reads 1 to {SCHEMA}")
    try:
        for older in range(schema, SCHEMA):
            raw = MIGRATIONS.get((cls.__name__, older), _unchanged)(raw)
        value: Value = _decoder(wanted)(raw)
    except (TypeError, ValueError, KeyError, RecursionError) as error:
        raise Unreadable(f"{cls.__name__} of schema {schema}: {error}") from error
    return value


def load_rollout(text: str | bytes) -> Rollout:
    """A rollout's record; raises Unreadable."""
    return load(Rollout, text)


def load_request(text: str | bytes) -> Request:
    """A request's record; raises Unreadable."""
    return load(Request, text)


def load_message(text: str | bytes) -> Message:
    """A message's record; raises Unreadable."""
    return load(Message, text)


def load_audit(text: str | bytes) -> Audit:
    """An audit record; raises Unreadable."""
    return load(Audit, text)


def load_freeze(text: str | bytes) -> Freeze:
    """A freeze's record; raises Unreadable."""
    return load(Freeze, text)


def shape(cls: type) -> dict[str, dict[str, str]]:
    """Fields and types of a value and of everything inside it: what a schema number stands for."""
    found: dict[str, dict[str, str]] = {}
    waiting: list[Any] = [cls]
    while waiting:
        one = waiting.pop()
        if isinstance(one, type) and is_dataclass(one):
            if one.__name__ not in found:
                hints = get_type_hints(one)
                found[one.__name__] = {field.name: _spelled(hints[field.name]) for field in fields(one)}
                waiting += [hints[field.name] for field in fields(one)]
        else:
            waiting += get_args(one)
    return dict(sorted(found.items()))


def _unchanged(raw: Raw) -> Raw:
    return raw


def _spelled(hint: Any) -> str:
    if isinstance(hint, type) and not get_args(hint):
        return hint.__name__
    if get_origin(hint) in (Union, types.UnionType):
        return " | ".join(_spelled(one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return f"tuple[{', '.join('...' if one is Ellipsis else _spelled(one) for one in get_args(hint))}]"
    return str(hint)


def _same(value: Any) -> Any:
    return value


@cache
def _encoder(hint: Any) -> _Encode:
    if hint in (str, int, float, bool, type(None)):
        return _same
    if isinstance(hint, type) and issubclass(hint, Enum):
        return lambda value: value.value
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass_encoder(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and len(args) == 2 and type(None) in args:
        inner = _encoder(next(one for one in args if one is not type(None)))
        return _same if inner is _same else lambda value: None if value is None else inner(value)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        each = _encoder(args[0])
        return list if each is _same else lambda values: [each(value) for value in values]
    if origin is tuple:
        parts = [_encoder(one) for one in args]
        return lambda values: [encode(value) for encode, value in zip(parts, values, strict=True)]
    raise TypeError(f"{hint!r} cannot be recorded")


def _dataclass_encoder(cls: type) -> _Encode:
    hints = get_type_hints(cls)
    plan = [(field.name, _default(field), _encoder(hints[field.name])) for field in fields(cls)]

    def encode(value: Any) -> Raw:
        raw: Raw = {}
        for name, default, inner in plan:
            item = getattr(value, name)
            if item is not default and item != default:
                raw[name] = item if inner is _same else inner(item)
        return raw

    return encode


def _default(field: "Field[Any]") -> Any:
    if field.default is not MISSING:
        return field.default
    return MISSING if field.default_factory is MISSING else field.default_factory()


@cache
def _decoder(hint: Any) -> _Decode:
    if hint in (str, int, float, bool, type(None)):
        return _SCALARS[hint]
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass_decoder(hint)
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType) and len(args) == 2 and type(None) in args:
        inner = _decoder(next(one for one in args if one is not type(None)))
        return lambda raw: None if raw is None else inner(raw)
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        each = _decoder(args[0])
        return lambda raw: tuple([each(item) for item in _list(raw)])
    if origin is tuple:
        parts = [_decoder(one) for one in args]
        return lambda raw: tuple([decode(item) for decode, item in zip(parts, _list(raw), strict=True)])
    raise TypeError(f"{hint!r} cannot be recorded")


def _dataclass_decoder(cls: type) -> _Decode:
    hints = get_type_hints(cls)
    decoders = {field.name: _decoder(hints[field.name]) for field in fields(cls)}
    required = frozenset(field.name for field in fields(cls) if _default(field) is MISSING)

    def decode(raw: Any) -> Any:
        if not isinstance(raw, dict):
            raise TypeError(f"{cls.__name__}: expected an object, not {raw!r:.60}")
        if not required <= raw.keys():
            raise KeyError(f"{cls.__name__}: {', '.join(sorted(required - raw.keys()))} missing")
        try:
            return cls(**{name: decoders[name](item) for name, item in raw.items()})
        except KeyError as error:
            raise KeyError(f"{cls.__name__}: {error.args[0]}") from error

    return decode


def _list(raw: Any) -> list[Any]:
    if not isinstance(raw, list):
        raise TypeError(f"expected a list, not {raw!r:.60}")
    return raw


def _string(raw: Any) -> str:
    """Short ones are names, which stand in a record many times, and in thousands of records: they are kept once."""
    if type(raw) is not str:
        raise TypeError(f"expected text, not {raw!r:.60}")
    return sys.intern(raw) if len(raw) <= _NAME_CHARS else raw


def _integer(raw: Any) -> int:
    if type(raw) is not int:
        raise TypeError(f"expected a whole number, not {raw!r:.60}")
    return raw


def _number(raw: Any) -> float:
    if type(raw) is float:
        return raw
    return float(_integer(raw))


def _truth(raw: Any) -> bool:
    if type(raw) is not bool:
        raise TypeError(f"expected true or false, not {raw!r:.60}")
    return raw


def _nothing(raw: Any) -> None:
    if raw is not None:
        raise TypeError(f"expected null, not {raw!r:.60}")


_SCALARS: Mapping[Any, _Decode] = {
    str: _string, int: _integer, float: _number, bool: _truth, type(None): _nothing,
}  # fmt: skip
