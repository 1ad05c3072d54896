"""When rollouts look: at moments that others look at too, so that they share questions, and evenly over time.

Looks are put off to the next of evenly spaced moments, which lie so far apart that each has enough looks to fill a
question and never further than a fifteenth of the time between two looks of one rollout. Rollouts keep the moments that
their starts have given them, so the work stays as level as starts are.
"""

from math import ceil

FEW = 20
WANTED = 100
MOST = 1 / 15


def shared_moment(wake_at: float, every_s: float, active: int) -> float:
    """The moment (epoch seconds) at or soon after `wake_at` at which others look too; `wake_at` itself for a few."""
    if active < FEW:
        return wake_at
    apart_s = every_s * min(MOST, WANTED / active)
    return max(wake_at, ceil(wake_at / apart_s) * apart_s)
