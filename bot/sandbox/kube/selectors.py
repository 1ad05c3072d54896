"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from bot.sandbox.kube.resources import Resource
from bot.sandbox.kube.status import Json, bad_request

Matches = Callable[[Json], bool]

_TERM = re.compile(r"\s*((?:[^,()]|\([^()]*\))+)\s*(?:,|$)")
_SET = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_./-]*)\s+(in|notin)\s*\(([^()]*)\)$")
_EQUAL = re.compile(r"^([A-Za-z0-9][A-Za-z0-9_./-]*)\s*(==|=|!=)\s*([A-Za-z0-9_.-]*)$")
_EXISTS = re.compile(r"^(!?)\s*([A-Za-z0-9][A-Za-z0-9_./-]*)$")

_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS: dict[str, tuple[str, ...]] = {
    "events": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    ),
    "services": ("spec.clusterIP", "spec.type"),
}


def _terms(selector: str) -> list[str]:
    terms: list[str] = []
    at = 0
    while at < len(selector):
        found = _TERM.match(selector, at)
        if found is None or found.end() == at:
            raise bad_request(f"unable to parse requirement: found '{selector[at:]}'")
        terms.append(found.group(1).strip())
        at = found.end()
    return terms


def _labels(manifest: Json) -> dict[str, str]:
    labels: dict[str, str] = manifest["metadata"].get("labels") or {}
    return labels


def _label_term(term: str) -> Matches:
    if found := _SET.match(term):
        key, operator = found.group(1), found.group(2)
        values = frozenset(value.strip() for value in found.group(3).split(","))
        if operator == "in":
            return lambda manifest: _labels(manifest).get(key) in values
        return lambda manifest: _labels(manifest).get(key) not in values
    if found := _EQUAL.match(term):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda manifest: _labels(manifest).get(key) != value
        return lambda manifest: _labels(manifest).get(key) == value
    if found := _EXISTS.match(term):
        negated, key = found.groups()
        return lambda manifest: (key in _labels(manifest)) is not bool(negated)
    raise bad_request(f"unable to parse requirement: found '{term}', expected: !, identifier, or 'end of string'")


def _field(manifest: Json, path: str) -> str:
    node: Any = manifest
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    if path == "source":
        node = (manifest.get("source") or {}).get("component")
    if isinstance(node, bool):
        return "true" if node else "false"
    if node is None:
        return "false" if path in ("spec.unschedulable", "spec.hostNetwork") else ""
    return str(node)


def _field_term(term: str, resource: Resource) -> Matches:
    for operator in ("!=", "==", "="):
        path, found, value = term.partition(operator)
        if found:
            break
    else:
        raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
    if path not in _COMMON_FIELDS and path not in _FIELDS.get(resource.plural, ()):
        raise bad_request(f"field label not supported: {path}")
    if operator == "!=":
        return lambda manifest: _field(manifest, path) != value
    return lambda manifest: _field(manifest, path) == value


def parse(label_selector: str, field_selector: str, resource: Resource) -> Matches | None:
    """One predicate for both selectors, None when there are none. Raises a 400 for what cannot be read."""
    tests = [_label_term(term) for term in _terms(label_selector)]
    tests += [_field_term(term.strip(), resource) for term in field_selector.split(",") if term.strip()]
    if not tests:
        return None
    return lambda manifest: all(test(manifest) for test in tests)
