"""What the server can be told to do wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bot.sandbox.kube.status import Json, bad_request

KEYS = frozenset(("requests", "deny", "allow", "without", "serve", "bookmark_s", "drop_watches", "compact"))
_REQUEST_KEYS = frozenset(
    (
        "verbs",
        "resource",
        "namespace",
        "name",
        "user_agent",
        "dry_run",
        "status",
        "message",
        "retry_after_s",
        "times",
        "delay_s",
        "hang",
        "lose_reply",
    )
)


@dataclass(slots=True)
class RequestFault:
    """A fault of single requests; `times` counts down, None lasts until it is taken away."""

    stated: Json
    times: int | None

    def fits(
        self, verb: str, resource: str, namespace: str | None, name: str, user_agent: str, *, dry_run: bool
    ) -> bool:
        """Whether it applies to this request."""
        stated = self.stated
        return (
            verb in stated.get("verbs", (verb,))
            and stated.get("resource", "*") in ("*", resource)
            and stated.get("namespace", namespace) == namespace
            and stated.get("name", name) == name
            and stated.get("user_agent", "") in user_agent
            and stated.get("dry_run", dry_run) is dry_run
        )


@dataclass(slots=True)
class Faults:
    """The faults that are on.

    `requests`: a list of objects, each with a filter (`verbs`, `resource`, `namespace`, `name`, `user_agent` as a
    part of it, `dry_run`) and what happens: `delay_s`, `hang` (no answer until the faults change), `lose_reply` (the
    write happens, the connection is cut), `status` with `message` and `retry_after_s` (the request is refused),
    `times` (null: always). The first that fits is taken; one without `resource` fits discovery and reviews too.
    The other keys belong to the server: `deny` and `allow` (see access), `without` and `serve` (groups), `bookmark_s`,
    and the two that happen once, `drop_watches` and `compact`.
    """

    requests: list[RequestFault] = field(default_factory=list)
    stated: Json = field(default_factory=dict)
    generation: int = 0

    def put(self, changes: Any) -> Json:
        """Merge `changes` into what is stated; null removes a key. Raises a 400 for what is unknown."""
        if not isinstance(changes, dict) or changes.keys() - KEYS:
            raise bad_request(f"faults are an object with the keys {', '.join(sorted(KEYS))}")
        requests = changes.get("requests") or []
        for stated in requests:
            if not isinstance(stated, dict) or stated.keys() - _REQUEST_KEYS:
                raise bad_request(f"a request fault is an object with the keys {', '.join(sorted(_REQUEST_KEYS))}")
        if "requests" in changes:
            self.requests = [RequestFault(stated, stated.get("times")) for stated in requests]
        for key, value in changes.items():
            if key in ("requests", "drop_watches", "compact"):
                continue
            if value is None:
                self.stated.pop(key, None)
            else:
                self.stated[key] = value
        self.generation += 1
        return self.state()

    def state(self) -> Json:
        """What is on now."""
        left = [{**fault.stated, "times": fault.times} for fault in self.requests]
        return {**self.stated, "requests": left}

    def take(
        self, verb: str, resource: str, namespace: str | None, name: str, user_agent: str, *, dry_run: bool
    ) -> Json | None:
        """The fault of this request, if there is one; counts it down."""
        for fault in self.requests:
            if fault.times != 0 and fault.fits(verb, resource, namespace, name, user_agent, dry_run=dry_run):
                if fault.times is not None:
                    fault.times -= 1
                return fault.stated
        return None
