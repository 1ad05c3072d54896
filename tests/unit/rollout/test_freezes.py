"""Which services a freeze binds, and when."""

import pytest

from bot.rollout.model import Freeze
from tests.fixtures.rollouts import ADA, NOW

SALE = Freeze("f1", "payments", "the sale", ADA, NOW, NOW + 60)


@pytest.mark.parametrize(
    ("service", "now", "bound"),
    [("payments", NOW, True), ("payments", NOW + 60, False), ("checkout", NOW, False), ("payments", NOW - 50, True)],
)
def test_a_freeze_binds_its_service_until_it_ends(service: str, now: float, bound: bool) -> None:
    """From when it is stored, also for a holder whose clock is behind that of the process that took it."""
    assert SALE.covers(service, now) is bound
