"""Pods as a watch has told them are found by their labels."""

import random
from typing import Any

from bot.adapters.cluster import _Pods
from bot.adapters.kubernetes import Snapshot


def _pod(name: str, labels: dict[str, str], *, leaving: bool = False) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "shop", "labels": labels}
    if leaving:
        metadata["deletionTimestamp"] = "2026-11-20T16:00:00Z"
    return {"metadata": metadata}


def test_a_selector_finds_the_pods_that_carry_all_its_labels_whoever_comes_and_goes() -> None:
    """Many pods under one label, few under another, labels that change, pods that leave, and a list anew."""
    draw = random.Random(7)
    pods, there = _Pods(0.0), dict[str, dict[str, str]]()
    selectors: list[tuple[tuple[str, str], ...]] = [
        (("version", "v1"),),
        (("app", "a"), ("version", "v2")),
        (("app", "b"),),
        (("app", "nobody"), ("version", "v1")),
        (("version", "v1"), ("version", "v2")),
    ]
    most = 0
    for step in range(800):
        name = f"pod-{draw.randrange(40)}"
        labels = {"app": draw.choice("abc"), "version": draw.choice(("v1", "v1", "v2"))}
        match draw.randrange(10):
            case 0 | 1:
                pods.drop(_pod(name, labels))
                there.pop(name, None)
            case 2:
                pods.put(_pod(name, labels, leaving=True))
                there.pop(name, None)
            case 3 if step % 50 == 0:
                there = {f"pod-{number}": labels for number in range(draw.randrange(12))}
                pods.replace_all(Snapshot(tuple(_pod(one, labels) for one in there)))
            case _:
                pods.put(_pod(name, labels))
                there[name] = labels
        for selector in selectors:
            wanted = sorted(one for one, has in there.items() if all(has.get(key) == value for key, value in selector))
            assert [pod.name for pod in pods.select(selector)] == wanted
            most = max(most, len(wanted))
    assert most > 10


def test_thousands_of_pods_have_a_label_once() -> None:
    """`version: v1` is one value for all of them."""
    pods = _Pods(0.0)
    for number in range(20):
        pods.put(_pod(f"pod-{number}", {"app": f"svc-{number}", "version": "v1"}))
    assert len({id(labels[1]) for labels in pods.labels.values()}) == 1
