"""What a former holder may still send when another takes a rollout over."""

from bot.rollout.model import HoldReason, Rollout

APART_S = 5.0
"""How far the clocks of two holders may be apart."""


def may_be_in_hand(rollout: Rollout, now: float) -> bool:
    """Whether a former holder may have a raise in hand that was decided on this record or just after it.

    Every raise is saved before it is sent, with a token that the store no longer takes once there is a newer one. So a
    record read after the lease was gained shows every raise that may still come, as its `write`. Where the store has
    lost its last second (a fail-over) the record is a little older: then a raise can have followed from it where the
    bake may have been over, or people had asked to go on without it. A record that was rebuilt from a mark shows
    nothing of what was saved before the store lost it all.
    """
    if HoldReason.RECOVERED in rollout.hold_reasons:
        return True
    if rollout.write is not None or rollout.hurry or rollout.override or rollout.approval is not None:
        return True
    confirmed_at = rollout.bake.confirmed_at
    return confirmed_at is None or now - confirmed_at >= rollout.needed_s - APART_S
