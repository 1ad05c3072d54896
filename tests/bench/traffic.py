"""Simulated requests of a canary and of stable beside it, counted every five seconds, many runs at once.

Requests arrive as a Poisson process and go to the canary with the weight's probability. What makes them bad is given as
a probability per run and look for each side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LOOK_S = 5.0
MINUTE = 12
"""Looks in a minute."""

Array = NDArray[np.float64]
Random = np.random.Generator
Chance = Callable[[Random, int, int], Array]
"""(random, runs, looks) -> the probability that a request is bad, per run and look."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Counts per run (rows) and look (columns)."""

    requests: Array
    bad: Array
    stable_requests: Array
    stable_bad: Array

    @property
    def runs(self) -> int:
        return self.requests.shape[0]

    @property
    def looks(self) -> int:
        return self.requests.shape[1]


def arrays(traffic: Traffic) -> tuple[Array, Array, Array, Array]:
    """Its four arrays of counts."""
    return traffic.requests, traffic.bad, traffic.stable_requests, traffic.stable_bad


@dataclass(frozen=True, slots=True)
class Split:
    """Where the requests go: the weight in percent at each look, and requests per second of both sides together.

    `burst` is the shape of a gamma distribution with mean 1 by which the arrivals of each look are multiplied: the
    smaller, the burstier; 0 for none.
    """

    weights: Array
    per_s: float
    burst: float = 0.0


def rollout(canary_per_s: float, burst: float = 0.0) -> Split:
    """Five steps of ten minutes each; `canary_per_s` is the canary's traffic at the first of them, 5%."""
    weights = np.repeat(np.array([5.0, 25.0, 50.0, 75.0, 100.0]), 10 * MINUTE)
    return Split(weights, canary_per_s / 0.05, burst)


def beside(canary_per_s: float, stable_per_s: float, minutes: float) -> Split:
    """One weight all the time."""
    total = canary_per_s + stable_per_s
    return Split(np.full(int(minutes * MINUTE), 100 * canary_per_s / total), total)


def same(probability: float) -> Chance:
    """The same at every moment."""
    return lambda random, runs, looks: np.full((runs, looks), probability)


def changing(before: float, after: float, looks_before: int) -> Chance:
    """One probability first, another afterwards."""

    def chance(random: Random, runs: int, looks: int) -> Array:
        probability = np.full((runs, looks), before)
        probability[:, looks_before:] = after
        return probability

    return chance


def drifting(base: float, at_most: float = 1.0) -> Chance:
    """Autocorrelated: an AR(1) walk on the logit around `base`, 0.8 in standard deviation, forgotten over 4 minutes."""
    kept, spread = 0.98, 0.8

    def chance(random: Random, runs: int, looks: int) -> Array:
        shocks = random.normal(0.0, spread * np.sqrt(1 - kept**2), (runs, looks))
        walk = np.empty((runs, looks))
        at = random.normal(0.0, spread, runs)
        for look in range(looks):
            at = kept * at + shocks[:, look]
            walk[:, look] = at
        found: Array = np.minimum(1 / (1 + (1 / base - 1) * np.exp(-walk)), at_most)
        return found

    return chance


def outbursts(base: float, height: float = 0.3) -> Chance:
    """`base`, but about every ten minutes ten seconds in which a request is bad with a probability of `height`."""

    def chance(random: Random, runs: int, looks: int) -> Array:
        begins = random.random((runs, looks)) < 1 / (10 * MINUTE)
        begins[:, 1:] |= begins[:, :-1]
        return np.where(begins, height, base)

    return chance


def simulate(
    random: Random, runs: int, split: Split, stable: Chance, canary: Chance | float = 1.0, together: int = 1
) -> Traffic:
    """Draw traffic. A number as `canary` multiplies the odds of what stable has at the same moment.

    With `together` every bad request comes with its retries, all on the same side and all bad.
    """
    looks = split.weights.size
    per_look = np.full((runs, looks), split.per_s * LOOK_S)
    if split.burst:
        per_look *= random.gamma(split.burst, 1 / split.burst, (runs, looks))
    share = split.weights / 100
    requests = random.poisson(per_look * share).astype(np.float64)
    stable_requests = random.poisson(per_look * (1 - share)).astype(np.float64)
    stable_chance = stable(random, runs, looks)
    if callable(canary):
        chance = canary(random, runs, looks)
    else:
        chance = canary * stable_chance / (1 + (canary - 1) * stable_chance)
    bad = random.binomial(requests.astype(np.int64), chance).astype(np.float64)
    stable_bad = random.binomial(stable_requests.astype(np.int64), stable_chance).astype(np.float64)
    retries = together - 1
    return Traffic(
        requests + retries * bad, together * bad, stable_requests + retries * stable_bad, together * stable_bad
    )


def tails(random: Random, runs: int, minutes: int, per_look: int, fraction: float) -> Array:
    """Latencies in ms, shaped (runs, looks, per_look): about 40 ms, but a `fraction` above 250, heavy-tailed."""
    shape = (runs, minutes * MINUTE, per_look)
    body = 40 * np.exp(0.4 * random.normal(size=shape))
    tail = 250 * (1 - random.random(shape)) ** (-1 / 1.2)
    found: Array = np.where(random.random(shape) < fraction, tail, body)
    return found
