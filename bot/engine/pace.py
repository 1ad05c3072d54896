"""When rollouts look: at moments that others look at too, so that they share questions, and evenly over time.

Looks are put off to the next of evenly spaced moments, which lie so far apart that each has enough looks to fill a
question and never further than a fifteenth of the time between two looks of one rollout. Rollouts keep the moments that
their starts have given them, so the work stays as level as starts are.
"""

from collections.abc import Sequence
from math import ceil

from bot.rollout.events import CARD_EVERY_S
from bot.rollout.handover import may_be_in_hand
from bot.rollout.model import Phase, Rollout

FEW = 20
WANTED = 150
MOST = 1 / 15
SAME = 1e-5
"""What a moment may lie behind another and still be the same: sums of floats are not exact."""
AT_ONCE = 64
CARDS_PER_MINUTE = 25
"""Half of the edits that Slack takes; the other half is for what people act upon."""
TAKEN_UP_PER_S = 100.0


def shared_moment(wake_at: float, every_s: float, active: int) -> float:
    """The moment (epoch seconds) at or soon after `wake_at` at which others look too; `wake_at` itself for a few."""
    if active < FEW:
        return wake_at
    apart_s = every_s / ceil(max(1 / MOST, active / WANTED))
    return ceil(wake_at / apart_s - SAME) * apart_s


def in_step(due_at: float, now: float, every_s: float) -> float:
    """The last moment (epoch seconds) at or before `now` that lies a whole number of looks after the one at which a
    look was due: one that comes late leaves the others where they are, and the work as level as it was."""
    return due_at + max(0.0, now - due_at) // every_s * every_s


def card_every_s(active: int) -> float:
    """How often a card follows its numbers, so that all of them together stay within what Slack takes."""
    return max(CARD_EVERY_S, active * 60 / CARDS_PER_MINUTE)


def first_looks(rollouts: Sequence[Rollout], now: float) -> list[tuple[Rollout, float]]:
    """When a new holder looks at each of its rollouts for the first time (epoch seconds), the most urgent first.

    At once: what is on its way back or has a write under way, and a few more. The others follow 100 a second, or faster
    when that is needed to have looked at each within the time that lies between two looks anyway. Those go first of
    which a former holder may have a raise in hand, then those that were looked at longest ago.
    """
    waiting = sorted(rollouts, key=lambda rollout: _urgency(rollout, now))
    found = []
    later = 0
    for rank, rollout in enumerate(waiting):
        if rank < AT_ONCE or pressing(rollout):
            found.append((rollout, now))
            continue
        per_s = max(TAKEN_UP_PER_S, len(waiting) / rollout.rules.check_every_s)
        later += 1
        found.append((rollout, shared_moment(now + later / per_s, rollout.rules.check_every_s, len(waiting))))
    return found


def pressing(rollout: Rollout) -> bool:
    """On its way back, or with a write under way: no look of others goes before it."""
    return rollout.phase is Phase.ROLLING_BACK or rollout.write is not None


def _urgency(rollout: Rollout, now: float) -> tuple[bool, bool, float]:
    looked_at = rollout.assessment.at if rollout.assessment is not None else 0.0
    return not pressing(rollout), not may_be_in_hand(rollout, now), looked_at
