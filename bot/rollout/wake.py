"""When a rollout wants to be woken next, and whether its gates are asked then."""

from bot.rollout.model import Approval, Hold, HoldReason, Phase, Rollout

RETRY_S = (1.0, 2.0, 5.0)
_EARLY_S = 0.05
_SAID_AFTER_S = (60.0, 900.0)
_SAID_EVERY_S = 3600.0
REMINDERS = (0.5, 0.9)
UNSERVED_S = 2.0
"""How long a canary's destination may have nothing behind it before it goes to 0: objects are also replaced."""


def wake_at(rollout: Rollout, now: float) -> float | None:
    """The next moment (epoch seconds) at which something may be due; None when final."""
    if rollout.phase.final:
        return None
    if rollout.phase is Phase.SCHEDULED:
        return max(now, rollout.scheduled_at)
    if rollout.phase is Phase.ROLLING_BACK:
        attempts = rollout.write.attempts if rollout.write else 0
        return now + RETRY_S[min(max(attempts - 1, 0), len(RETRY_S) - 1)]
    moments = [now + rollout.rules.check_every_s]
    if rollout.approval is not None and not rollout.granted:
        moments.append(reminder_at(rollout.approval))
    hold = rollout.held(HoldReason.CANNOT_MEASURE)
    if hold is not None:
        moments.append(said_at(hold))
    drift = rollout.held(HoldReason.DRIFT)
    if drift is not None and rollout.found is not None and rollout.found.canary_lost:
        moments += [at for at in (drift.since + UNSERVED_S,) if at > now]
    return max(now, min(moments))


def look_due(rollout: Rollout, now: float) -> bool:
    """Whether a wake-up at `now` asks the gates: in every running phase, once per `check_every_s`, and when it is time
    to say again that they cannot be measured (only a look can tell). A look far ahead of `now` was made by a clock that
    has been set back since, and puts off nothing."""
    if rollout.phase not in (Phase.PROGRESSING, Phase.AWAITING_APPROVAL, Phase.HOLDING):
        return False
    failing = rollout.held(HoldReason.CANNOT_MEASURE)
    if failing is not None and now >= said_at(failing):
        return True
    look = rollout.assessment
    return look is None or abs(now - look.at) >= rollout.rules.check_every_s - _EARLY_S


def reminder_at(approval: Approval) -> float:
    """When an open approval is next spoken of: at half, at 90%, and when it expires."""
    if approval.reminded >= len(REMINDERS):
        return approval.expires_at
    return approval.asked_at + REMINDERS[approval.reminded] * (approval.expires_at - approval.asked_at)


def said_at(hold: Hold) -> float:
    """When a measurement that fails is next spoken of: after 1 min, after 15 min, then hourly."""
    if hold.said < len(_SAID_AFTER_S):
        return hold.since + _SAID_AFTER_S[hold.said]
    return hold.since + _SAID_AFTER_S[-1] + _SAID_EVERY_S * (hold.said - len(_SAID_AFTER_S) + 1)
