"""The three patch types, applied without touching the document: a new state shares what did not change.

JSON Patch follows the library the real server uses (evanphx/json-patch, v4), with its habit that `test` for null
passes on an absent member; negative array indexes, which that library allows against RFC 6902, are refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bot.sandbox.kube.status import Json, bad_request, patch_failed

MAX_OPERATIONS = 10_000
_ABSENT: Any = object()


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal, without Python's `True == 1`."""
    if left is right:
        return True
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    return bool(left == right)


def json_patch(document: Json, operations: Any) -> Json:
    """Apply RFC 6902 operations in order.

    Raises a 400 when `operations` is no list of objects, a 422 when one of them does not apply.
    """
    if not isinstance(operations, list):
        raise bad_request("json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if not all(isinstance(operation, dict) for operation in operations):
        raise bad_request("json: cannot unmarshal value into Go value of type jsonpatch.Operation")
    if len(operations) > MAX_OPERATIONS:
        raise bad_request(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(operations)}")
    result: Any = document
    for operation in operations:
        result = _apply(result, operation)
    if not isinstance(result, dict):
        raise patch_failed()
    return result


def _apply(document: Any, operation: Json) -> Any:
    path = _tokens(operation.get("path"))
    match operation.get("op"):
        case "add":
            return _set(document, path, _value(operation), _add)
        case "remove":
            return _set(document, path, None, _remove)
        case "replace":
            return _set(document, path, _value(operation), _replace)
        case "test":
            found = _get(document, path)
            if not same(None if found is _ABSENT else found, operation.get("value")):
                raise patch_failed()
            return document
        case "move":
            origin = _tokens(operation.get("from"))
            moved = _get(document, origin)
            if moved is _ABSENT:
                raise patch_failed()
            return _set(_set(document, origin, None, _remove), path, moved, _add)
        case "copy":
            copied = _get(document, _tokens(operation.get("from")))
            if copied is _ABSENT:
                raise patch_failed()
            return _set(document, path, copied, _add)
        case _:
            raise patch_failed()


def _value(operation: Json) -> Any:
    if "value" not in operation:
        raise patch_failed()
    return operation["value"]


def _tokens(pointer: Any) -> list[str]:
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise patch_failed()
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _index(token: str, end: int) -> int:
    if not token.isascii() or not token.isdigit() or (len(token) > 1 and token[0] == "0") or int(token) >= end:
        raise patch_failed()
    return int(token)


def _get(document: Any, path: list[str]) -> Any:
    node = document
    for depth, token in enumerate(path):
        if isinstance(node, dict):
            if token not in node:
                if depth == len(path) - 1:
                    return _ABSENT
                raise patch_failed()
            node = node[token]
        elif isinstance(node, list):
            node = node[_index(token, len(node))]
        else:
            raise patch_failed()
    return node


def _set(node: Any, path: list[str], value: Any, change: Callable[[Any, str, Any], None]) -> Any:
    if not path:
        if change is _remove:
            raise patch_failed()
        return value
    copy: Any
    if isinstance(node, dict):
        copy = dict(node)
        if len(path) > 1:
            if path[0] not in copy:
                raise patch_failed()
            copy[path[0]] = _set(copy[path[0]], path[1:], value, change)
            return copy
    elif isinstance(node, list):
        copy = list(node)
        if len(path) > 1:
            index = _index(path[0], len(copy))
            copy[index] = _set(copy[index], path[1:], value, change)
            return copy
    else:
        raise patch_failed()
    change(copy, path[0], value)
    return copy


def _add(container: Any, key: str, value: Any) -> None:
    if isinstance(container, dict):
        container[key] = value
    elif key == "-":
        container.append(value)
    else:
        container.insert(_index(key, len(container) + 1), value)


def _remove(container: Any, key: str, value: Any) -> None:
    if isinstance(container, list):
        del container[_index(key, len(container))]
    elif key in container:
        del container[key]
    else:
        raise patch_failed()


def _replace(container: Any, key: str, value: Any) -> None:
    if isinstance(container, list):
        container[_index(key, len(container))] = value
    elif key in container:
        container[key] = value
    else:
        raise patch_failed()


def merge_patch(target: Any, patch: Any) -> Any:
    """Apply an RFC 7396 merge patch: null removes, lists are replaced."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


_MERGE_KEYS = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "ports": "containerPort",
    "taints": "key",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""List fields of the core kinds that merge by a key; other lists are replaced, as with a merge patch."""


def strategic_merge(target: Any, patch: Any, field: str = "") -> Any:
    """Apply a strategic merge patch with the directives `$patch: delete | replace` and the keys of the core kinds."""
    if isinstance(patch, dict):
        if patch.get("$patch") == "replace":
            return {key: value for key, value in patch.items() if key != "$patch"}
        result = dict(target) if isinstance(target, dict) else {}
        for key, value in patch.items():
            if key.startswith("$"):
                continue
            if value is None:
                result.pop(key, None)
            else:
                result[key] = strategic_merge(result.get(key), value, key)
        return result
    if isinstance(patch, list):
        return _merge_list(target, patch, field)
    return patch


def _merge_list(target: Any, patch: list[Any], field: str) -> list[Any]:
    key = _MERGE_KEYS.get(field)
    if field == "ports" and any(isinstance(item, dict) and "port" in item for item in patch):
        key = "port"
    if key is None or not isinstance(target, list) or any(item == {"$patch": "replace"} for item in patch):
        return [item for item in patch if item != {"$patch": "replace"}]
    result = list(target)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise bad_request(f"map: {item} does not contain declared merge key: {key}")
        at = next((i for i, old in enumerate(result) if isinstance(old, dict) and old.get(key) == item[key]), None)
        if item.get("$patch") == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append({name: value for name, value in item.items() if not name.startswith("$")})
        else:
            result[at] = strategic_merge(result[at], item)
    return result
