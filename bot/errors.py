"""What callers may be told of a failure: whether to show it, read again, wait, or give up."""


class CanaryError(Exception):
    """The root of every error this project raises on purpose."""


class UserError(CanaryError):
    """Bad input or a refusal; `message` is shown to the person as it is, `hint` says the way on."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Refused(UserError):
    """The person may not do this; audited by the caller."""


class Conflict(CanaryError):
    """The world moved since it was read: read again, decide again, never retry blindly."""


class Overwritten(Conflict):
    """What was written was there, and somebody else wrote over it before it could be read back."""


class RouteTaken(Conflict):
    """Another rollout is active on the route."""

    def __init__(self, rollout_id: str) -> None:
        super().__init__(f"rollout {rollout_id} is active on this route")
        self.rollout_id = rollout_id


class LeaseLost(Conflict):
    """The store has seen a newer fencing token than ours: stop acting at once."""


class Transient(CanaryError):
    """May work later: time-outs, 429, 5xx, refused connections. `delay_s` is the earliest useful retry."""

    def __init__(self, message: str, delay_s: float = 0.0) -> None:
        super().__init__(message)
        self.delay_s = delay_s


class Permanent(CanaryError):
    """Will not work by trying again: forbidden, not found, refused as invalid."""


class NotFound(Permanent):
    """The named thing is not there."""


class Unreadable(Permanent):
    """A stored record cannot be read; it is quarantined, the others go on."""


class CannotMeasure(CanaryError):
    """A question to the metrics could not be answered; holds the weight, never rolls back."""


class OtherShards(Permanent):
    """The store is in use with another number of shards than this process is set to."""
