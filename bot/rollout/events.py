"""Everything that can happen to a rollout. People's requests carry who, when and what they were looking at."""

from enum import StrEnum

from bot.rollout.gate import Assessment
from bot.rollout.model import Actor, Freeze
from bot.rollout.route import RouteState
from bot.values import dataclass

CARD_EVERY_S = 30.0


@dataclass(frozen=True, slots=True)
class Due:
    """A scheduled rollout's time has come; `problems` are preflight findings that refuse it.

    `fingerprint` pins the canary as it runs now, "" when that was not looked at again.
    """

    problems: tuple[str, ...] = ()
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class TookOver:
    """A holder loaded this rollout (start, failover): pending raises are withdrawn, samples must be fresh."""

    route: RouteState | None


class Remains(StrEnum):
    """What is left where the route was: NOTHING, so that requests go to all ready pods of the service; the OBJECT, and
    nothing in it sends to the canary; or TRAFFIC, which the canary still gets by another route of the object."""

    NOTHING = "nothing"
    OBJECT = "object"
    TRAFFIC = "traffic"


@dataclass(frozen=True, slots=True)
class RouteGone:
    """The object, or the route in it, is no longer there; `detail` says which, without a full stop."""

    detail: str
    remains: Remains = Remains.NOTHING


@dataclass(frozen=True, slots=True)
class Looked:
    """The gates were asked; also carries the freezes in force and the route as it is, None when it cannot be read.

    `gone` says that there is no route to read: the gates are judged all the same. `card_every_s` is how often the card
    may follow numbers that nobody acts upon.
    """

    assessment: Assessment
    freezes: tuple[Freeze, ...] = ()
    route: RouteState | None = None
    gone: RouteGone | None = None
    card_every_s: float = CARD_EVERY_S


@dataclass(frozen=True, slots=True)
class Clocked:
    """Time passed without a look (reminders, expiry, freezes); `route` None when it was not read.

    `stable_ready` counts stable's ready pods where somebody asked (an expiry may roll back), None when unknown.
    """

    freezes: tuple[Freeze, ...] = ()
    route: RouteState | None = None
    stable_ready: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """The route shows the write of this revision, read back."""

    revision: int
    weight_percent: int
    route: RouteState


@dataclass(frozen=True, slots=True)
class WriteFailed:
    """The write of this revision did not happen: `conflict` the route is not what we tested for (drift, another
    object), `overwritten` it was there and somebody else wrote over it at once, `refused` the API server will not take
    it, otherwise it may work later. `route` is the reading after it."""

    revision: int
    kind: str
    detail: str
    route: RouteState | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asked of one rollout.

    `verb` is one of VERBS. `revision` and `step` are those of the button, None for a typed command (which acts on
    the present state). `reason` free text. `option` is verb-specific: promote: "", "full" or "override"; drift:
    "adopt", "reapply"; redeployed: "restart"; extend: seconds. `allowed` was decided where the person was known.
    """

    id: str
    rollout: str
    verb: str
    by: Actor
    at: float
    reason: str = ""
    option: str = ""
    revision: int | None = None
    step: int | None = None
    reply: "Reply | None" = None


VERBS = ("promote", "hold", "resume", "cancel", "rollback", "approve", "reject", "extend", "drift", "restart")


@dataclass(frozen=True, slots=True)
class Reply:
    """Where the answer to a request goes: an ephemeral to `user` in `channel` (thread `thread`), by `response_url`
    while it lives."""

    channel: str
    user: str
    thread: str = ""
    response_url: str = ""


Event = Due | TookOver | Looked | Clocked | Written | WriteFailed | RouteGone | Request
