"""What is remembered of the DestinationRules of a host."""

from typing import Any

from bot.adapters.kubernetes import Change, Snapshot
from bot.adapters.mesh.subsets import Subsets

HOST = "payments.shop.svc.cluster.local"


def _rule(name: str, *subsets: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "shop"}
    return {"metadata": metadata, "spec": {"host": "payments", "subsets": [{"name": one} for one in subsets]}}


def test_a_subset_is_lost_with_the_last_rule_that_has_it() -> None:
    """Rules of one host are known apart: one that goes takes none of the others with it."""
    subsets = Subsets()
    subsets.listed(Snapshot((_rule("one", "v1", "v2"), _rule("two", "v2"), _rule("three", "v3"))))
    assert [subsets.lost(HOST, name, ["shop"]) for name in ("v1", "v2", "v3")] == ["", "", ""]
    assert subsets.changed(Change("DELETED", _rule("one"))) == {HOST}
    assert subsets.lost(HOST, "v2", ["shop"]) == ""
    assert "DestinationRule shop/two" in subsets.lost(HOST, "v1", ["shop"])
    assert "DestinationRule shop/three" in subsets.lost(HOST, "v1", ["shop"])
    subsets.changed(Change("DELETED", _rule("two")))
    subsets.changed(Change("DELETED", _rule("three")))
    assert "DestinationRule shop/two was deleted" in subsets.lost(HOST, "v2", ["shop"])
    subsets.changed(Change("ADDED", _rule("four", "v2")))
    assert subsets.lost(HOST, "v2", ["shop"]) == ""
