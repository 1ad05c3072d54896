"""Who of several replicas holds how many shards: a rule over what each of them says of itself.

A replica aims at the even part, `shards / replicas` rounded up at the most and down at the least. It gives a shard back
when somebody lacks more of the least than lies free, or when there is more above the most than lies free, and only who
holds the most does (of several the first by name): so one shard moves for each one that has to, and none moves back.
A replica that has just come takes its part of what is free, but the others make room for it only when it has been there
for a while: one that starts, fails and starts again moves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from bot.ports.store import Replica

GONE_AFTER_S = 3.0
"""A replica that was silent for so long is gone; leases last as long."""
SETTLED_AFTER_S = 5.0


@dataclass(frozen=True, slots=True)
class Part:
    """How many more shards to try for, and whether to give one back."""

    take: int
    give: bool


def part(me: str, replicas: Sequence[Replica], shards: int) -> Part:
    """What the replica `me`, which is one of `replicas`, does about its shards now."""
    settled = [one for one in replicas if one.there_s >= SETTLED_AFTER_S]
    counted = [one for one in replicas if one in settled or one.name == me] if settled else list(replicas)
    held = next(one.held for one in replicas if one.name == me)
    others = [one.held for one in counted if one.name != me]
    free = max(0, shards - sum(one.held for one in replicas))
    least, most = shards // len(counted), ceil(shards / len(counted))
    lacking = sum(max(0, least - one) for one in others)
    above = sum(max(0, one - most) for one in (held, *others))
    first = min(counted, key=lambda one: (-one.held, one.name))
    return Part(
        take=max(least - held, min(most - held, free - lacking), 0),
        give=first.name == me and max(lacking, above) > free,
    )
