"""DestinationRules as a watch has shown them: which subsets a host has, and which it has lost.

A destination whose subset no rule has is a route to nowhere: proxies answer 503 (https://istio.io/latest/docs/ops/
common-problems/network-issues/#503-errors-after-setting-destination-rule).
"""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from bot.adapters.kubernetes import Change, Manifest, Snapshot, key_of
from bot.adapters.mesh.hosts import covers, fqdn
from bot.adapters.mesh.virtualservice import last_writer

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """What is kept of a DestinationRule: the host it is for, its subsets, and who wrote them last."""

    host: str
    subsets: tuple[str, ...]
    manager: str


class Subsets:
    """One scope's DestinationRules by namespace and name. Nothing is known before a snapshot is complete, nor while the
    watch is broken, and nobody is said to have lost what no rule of the host was ever seen with."""

    def __init__(self) -> None:
        self._rules: dict[Key, Rule] = {}
        self._by_host: dict[str, tuple[Key, ...]] = {}
        self._lost: dict[tuple[str, str], str] = {}
        self._listed: set[Key] = set()
        self._known = False

    def listed(self, told: Snapshot) -> set[str]:
        """Take in a page; the hosts whose rules have changed by it."""
        if told.first:
            self._listed = set()
        hosts = {host for item in told.items for host in self._put(item)}
        self._listed.update(key_of(item) for item in told.items)
        if told.last:
            for key in self._rules.keys() - self._listed:
                hosts |= self._drop(key)
            self._listed = set()
            self._known = True
        return hosts

    def changed(self, told: Change) -> set[str]:
        """Take in a change; the hosts whose rules have changed by it."""
        return self._drop(key_of(told.object)) if told.kind == "DELETED" else self._put(told.object)

    def broken(self) -> None:
        """Until the next snapshot nothing is known of what happens."""
        self._known = False

    def lost(self, host: str, subset: str, namespaces: Iterable[str]) -> str:
        """That no rule of these namespaces has a subset of a host any more, and whose doing that is; "" when one has
        it, or nobody knows."""
        if not self._known or not subset:
            return ""
        within = set(namespaces)
        rules = [(key, self._rules[key]) for key in self._keys(host) if key[0] in within]
        if any(subset in rule.subsets for _, rule in rules):
            return ""
        who = [f"DestinationRule {key[0]}/{key[1]}, last changed by `{rule.manager}`" for key, rule in rules]
        told = "; ".join(who) or self._lost.get((host, subset), "")
        return f"no DestinationRule for {host} has the subset {subset} any more ({told})" if told else ""

    def _keys(self, host: str) -> Sequence[Key]:
        wide = (
            key for pattern, keys in self._by_host.items() if "*" in pattern and covers(pattern, host) for key in keys
        )
        return sorted({*self._by_host.get(host, ()), *wide})

    def _put(self, manifest: Manifest) -> set[str]:
        namespace, name = key_of(manifest)
        key, spec = (sys.intern(namespace), sys.intern(name)), manifest.get("spec") or {}
        names = _same(tuple(sorted(sys.intern(str(subset.get("name") or "")) for subset in spec.get("subsets") or ())))
        host = fqdn(str(spec.get("host") or ""), namespace)
        rule = Rule(host, names, sys.intern(last_writer(manifest, "subsets")))
        if self._rules.get(key) == rule:
            return set()
        hosts = self._drop(key)
        self._rules[key] = rule
        self._by_host[host] = (*self._by_host.get(host, ()), key)
        for subset in names:
            self._lost.pop((host, subset), None)
        return hosts | {host}

    def _drop(self, key: Key) -> set[str]:
        rule = self._rules.pop(key, None)
        if rule is None:
            return set()
        keys = tuple(one for one in self._by_host.pop(rule.host) if one != key)
        if keys:
            self._by_host[rule.host] = keys
        for name in rule.subsets:
            self._lost[(rule.host, name)] = f"DestinationRule {key[0]}/{key[1]} was deleted"
        return {rule.host}


@lru_cache(maxsize=1024)
def _same(names: tuple[str, ...]) -> tuple[str, ...]:
    """The equal names that other rules have."""
    return names
