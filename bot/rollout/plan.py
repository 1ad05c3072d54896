"""A plan: the ordered weights of a rollout, how long each must hold, and where a person is asked."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One weight of a plan; `approval` is asked before this weight is entered."""

    weight_percent: int
    bake_s: float
    approval: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps of strictly rising weight, integers from 1, ending at 100."""

    name: str
    steps: tuple[Step, ...]
