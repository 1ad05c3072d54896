"""Whose first look under a new lease may begin: so many at a time."""

AT_A_TIME = 64
"""A first look asks for more than those that follow, and all of a large fleet are due within one round: without a limit
they would keep the holder from renewing its lease, and their answers would fill its memory. So many fill a question."""


class TakeUp:
    """The order of first looks. Who waits here costs a name, and no task."""

    def __init__(self, at_a_time: int = AT_A_TIME) -> None:
        self._at_a_time = at_a_time
        self._begun: set[str] = set()
        self._waiting: dict[str, None] = {}

    def may_begin(self, rollout_id: str) -> bool:
        """It is this one's turn; if not, `ended` will name it when it is."""
        if rollout_id not in self._begun and len(self._begun) >= self._at_a_time:
            self._waiting[rollout_id] = None
            return False
        self._waiting.pop(rollout_id, None)
        self._begun.add(rollout_id)
        return True

    def ended(self, rollout_id: str) -> str | None:
        """A wake-up is over, of whomever; who may begin in its place."""
        if rollout_id not in self._begun:
            return None
        self._begun.remove(rollout_id)
        following = next(iter(self._waiting), None)
        if following is not None:
            self.may_begin(following)
        return following

    def clear(self) -> None:
        """Another process decides now."""
        self._begun.clear()
        self._waiting.clear()
