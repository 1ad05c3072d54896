"""The Status objects a Kubernetes API server answers errors with, word for word."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

Json = dict[str, Any]


class ApiError(Exception):
    """A request the server refuses; `status` is the Status object it sends."""

    def __init__(
        self, code: int, reason: str, message: str, details: Json | None = None, retry_after_s: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_s = retry_after_s
        if retry_after_s is not None:
            details = {**(details or {}), "retryAfterSeconds": retry_after_s}
        self.status: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self.status["message"] = message
        if reason:
            self.status["reason"] = reason
        if details is not None:
            self.status["details"] = details
        self.status["code"] = code


class PlainError(Exception):
    """An answer below the API machinery: plain text, no Status object (unknown paths, priority and fairness)."""

    def __init__(self, code: int, text: str, retry_after_s: int | None = None) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.retry_after_s = retry_after_s


def qualified(plural: str, group: str) -> str:
    """Name of a resource as messages spell it: `virtualservices.networking.istio.io`, `pods`."""
    return f"{plural}.{group}" if group else plural


def _details(name: str, group: str, plural: str, uid: str | None = None) -> Json:
    details: Json = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = plural
    if uid:
        details["uid"] = uid
    return details


def deleted(name: str, group: str, plural: str, uid: str) -> Json:
    """Answer to a DELETE that removed the object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": _details(name, group, plural, uid),
    }


def unauthorized() -> ApiError:
    """No bearer token, or one nobody knows."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def forbidden(
    user: str, verb: str, plural: str, group: str, namespace: str | None, name: str, subresource: str = ""
) -> ApiError:
    """RBAC has no rule for this."""
    where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
    subject = qualified(plural, group) + (f' "{name}"' if name else "")
    asked = f"{plural}/{subresource}" if subresource else plural
    message = f'{subject} is forbidden: User "{user}" cannot {verb} resource "{asked}" in API group "{group}"{where}'
    return ApiError(403, "Forbidden", message, _details(name, group, plural))


def not_found(name: str, group: str, plural: str) -> ApiError:
    """The kind is served, the object is not there."""
    return ApiError(404, "NotFound", f'{qualified(plural, group)} "{name}" not found', _details(name, group, plural))


def unknown_path() -> PlainError:
    """The path names no resource that is served, as when a CustomResourceDefinition is missing."""
    return PlainError(404, "404 page not found\n")


def already_exists(name: str, group: str, plural: str) -> ApiError:
    """A create whose name is taken."""
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(name, group, plural))


def conflict(name: str, group: str, plural: str, why: str | None = None) -> ApiError:
    """The object is not in the state the request was made for."""
    why = why or "the object has been modified; please apply your changes to the latest version and try again"
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(name, group, plural))


def invalid(name: str, group: str, kind: str, causes: list[Json]) -> ApiError:
    """The object would not fit its schema; `causes` are `{reason, message, field}`."""
    said = [f"{cause['field']}: {cause['message']}" for cause in causes]
    whole = said[0] if len(said) == 1 else "[" + ", ".join(said) + "]"
    details = {**_details(name, group, kind), "causes": causes}
    return ApiError(422, "Invalid", f'{qualified(kind, group)} "{name}" is invalid: {whole}', details)


def patch_failed() -> ApiError:
    """A JSON Patch that could be read but not applied: a failed `test`, a missing path, an unknown operation."""
    message = "the server rejected our request due to an error in our request"
    return ApiError(422, "Invalid", message, {})


def bad_request(message: str) -> ApiError:
    """The request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def unsupported_media(accepted: tuple[str, ...]) -> ApiError:
    """A patch type the resource does not take."""
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return ApiError(415, "UnsupportedMediaType", message)


def method_not_allowed() -> ApiError:
    """The path exists, the method does not."""
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {})


def expired(asked: int, oldest: int) -> ApiError:
    """A watch that starts before the history the server still has."""
    return ApiError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def continue_expired() -> ApiError:
    """A list that goes on from a snapshot the server no longer has."""
    message = (
        "The provided continue parameter is too old to display a consistent list result. "
        "You can start a new list without the continue parameter."
    )
    return ApiError(410, "Expired", message)


def from_the_future(asked: int, current: int) -> ApiError:
    """A list at a resourceVersion that has not been written yet."""
    details = {
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
        "retryAfterSeconds": 1,
    }
    message = f"Timeout: Too large resource version: {asked}, current: {current}"
    return ApiError(504, "Timeout", message, details)


_FAULTS: dict[int, tuple[str, str]] = {
    500: ("InternalError", "Internal error occurred: etcdserver: request timed out"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}


def fault(
    code: int, message: str | None, retry_after_s: int | None, name: str, group: str, plural: str
) -> ApiError | PlainError:
    """The error a fault asks for, in the words the real server has for that code."""
    if code == 429:
        after = 1 if retry_after_s is None else retry_after_s
        return PlainError(429, message or "Too many requests, please try again later.\n", after)
    if code == 409 and message is None:
        return conflict(name, group, plural)
    known, said = _FAULTS.get(code, ("", HTTPStatus(code).phrase))
    return ApiError(code, known, message or said, _details(name, group, plural), retry_after_s)
