"""What the schemas of the served kinds refuse, as far as this project's objects go.

Unknown fields are kept, where a real CustomResourceDefinition would prune them. Weights are held to 0..100, which
is narrower than Istio's int32: a percentage is all this project ever writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bot.sandbox.kube.resources import Resource
from bot.sandbox.kube.status import Json, invalid

_SUBDOMAIN = re.compile(r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
_LABEL_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character"
)


@dataclass(frozen=True, slots=True)
class _Rule:
    """Type of the values at a path, whose `[]` stands for every item of a list."""

    path: str
    type: str
    required: bool = False
    least: int | None = None
    most: int | None = None


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "boolean": (bool,),
}


def _routes(kind: str, *, weighted: bool) -> tuple[_Rule, ...]:
    base = f"spec.{kind}"
    rules = (
        _Rule(base, "array"),
        _Rule(f"{base}[]", "object"),
        _Rule(f"{base}[].name", "string"),
        _Rule(f"{base}[].match", "array"),
        _Rule(f"{base}[].route", "array"),
        _Rule(f"{base}[].route[]", "object"),
        _Rule(f"{base}[].route[].destination", "object", required=True),
        _Rule(f"{base}[].route[].destination.host", "string", required=True),
        _Rule(f"{base}[].route[].destination.subset", "string"),
    )
    return (*rules, _Rule(f"{base}[].route[].weight", "integer", least=0, most=100)) if weighted else rules


_RULES: dict[tuple[str, str], tuple[_Rule, ...]] = {
    ("networking.istio.io", "virtualservices"): (
        _Rule("spec", "object"),
        _Rule("spec.hosts", "array"),
        _Rule("spec.hosts[]", "string"),
        _Rule("spec.gateways", "array"),
        *_routes("http", weighted=True),
        _Rule("spec.http[].timeout", "string"),
        _Rule("spec.http[].retries", "object"),
        _Rule("spec.http[].retries.attempts", "integer"),
        *_routes("tcp", weighted=True),
        *_routes("tls", weighted=True),
    ),
    ("networking.istio.io", "destinationrules"): (
        _Rule("spec", "object"),
        _Rule("spec.host", "string", required=True),
        _Rule("spec.subsets", "array"),
        _Rule("spec.subsets[].name", "string", required=True),
        _Rule("spec.subsets[].labels", "object"),
    ),
    ("gateway.networking.k8s.io", "httproutes"): (
        _Rule("spec", "object", required=True),
        _Rule("spec.rules", "array"),
        _Rule("spec.rules[].backendRefs", "array"),
        _Rule("spec.rules[].backendRefs[].name", "string", required=True),
        _Rule("spec.rules[].backendRefs[].weight", "integer", least=0, most=1_000_000),
    ),
    ("split.smi-spec.io", "trafficsplits"): (
        _Rule("spec", "object"),
        _Rule("spec.service", "string"),
        _Rule("spec.backends", "array"),
        _Rule("spec.backends[].service", "string", required=True),
        _Rule("spec.backends[].weight", "integer"),
    ),
    ("apps", "deployments"): (
        _Rule("spec", "object", required=True),
        _Rule("spec.replicas", "integer", least=0),
        _Rule("spec.selector", "object", required=True),
        _Rule("spec.template", "object", required=True),
    ),
}


def _said(value: Any) -> str:
    match value:
        case dict():
            return "object"
        case list():
            return "array"
        case str():
            return "string"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case _:
            return "null"


@dataclass(slots=True)
class _Node:
    """The rules of one kind as a tree, so that an object is walked once."""

    rule: _Rule | None = None
    members: dict[str, _Node] = field(default_factory=dict)
    items: _Node | None = None


def _tree(rules: tuple[_Rule, ...]) -> _Node:
    root = _Node()
    for rule in rules:
        node = root
        for part in rule.path.split("."):
            node = node.members.setdefault(part.removesuffix("[]"), _Node())
            if part.endswith("[]"):
                node.items = node = node.items or _Node()
        node.rule = rule
    return root


_TREES = {key: _tree(rules) for key, rules in _RULES.items()}


def _judge(node: _Node, value: Any, path: str, causes: list[Json]) -> None:
    if node.rule is not None:
        cause = _fault(node.rule, path, value)
        if cause is not None:
            causes.append(cause)
            return
    if isinstance(value, dict):
        for name, member in node.members.items():
            below = f"{path}.{name}" if path else name
            if name in value:
                _judge(member, value[name], below, causes)
            elif member.rule is not None and member.rule.required:
                causes.append({"reason": "FieldValueRequired", "message": "Required value", "field": below})
    elif node.items is not None and isinstance(value, list):
        for index, item in enumerate(value):
            _judge(node.items, item, f"{path}[{index}]", causes)


def _fault(rule: _Rule, path: str, value: Any) -> Json | None:
    fits = isinstance(value, _TYPES[rule.type]) and not (rule.type == "integer" and isinstance(value, bool))
    if not fits:
        shown = f'"{_said(value)}"'
        message = f"Invalid value: {shown}: {path} in body must be of type {rule.type}: {shown}"
        return {"reason": "FieldValueTypeInvalid", "message": message, "field": path}
    if rule.least is not None and value < rule.least:
        bound = f"greater than or equal to {rule.least}"
    elif rule.most is not None and value > rule.most:
        bound = f"less than or equal to {rule.most}"
    else:
        return None
    message = f"Invalid value: {value}: {path} in body should be {bound}"
    return {"reason": "FieldValueInvalid", "message": message, "field": path}


def _metadata_causes(metadata: Json) -> Iterator[Json]:
    for name in ("labels", "annotations"):
        values = metadata.get(name)
        if values is None:
            continue
        if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
            message = f"Invalid value: metadata.{name} in body must be a map of string to string"
            yield {"reason": "FieldValueTypeInvalid", "message": message, "field": f"metadata.{name}"}
        elif name == "labels":
            for value in values.values():
                if len(value) > 63 or not _LABEL_VALUE.match(value):
                    message = f'Invalid value: "{value}": a valid label must be an empty string or alphanumeric'
                    yield {"reason": "FieldValueInvalid", "message": message, "field": "metadata.labels"}


def check(resource: Resource, manifest: Json) -> None:
    """Raise a 422 with one cause per fault when the manifest does not fit its kind."""
    metadata = manifest["metadata"]
    name: str = metadata["name"]
    causes: list[Json] = []
    if len(name) > 253 or not _SUBDOMAIN.match(name):
        message = f'Invalid value: "{name}": {_SUBDOMAIN_RULE}'
        causes.append({"reason": "FieldValueInvalid", "message": message, "field": "metadata.name"})
    causes.extend(_metadata_causes(metadata))
    tree = _TREES.get((resource.group, resource.plural))
    if tree is not None:
        _judge(tree, manifest, "", causes)
    if causes:
        raise invalid(name, resource.group, resource.kind, causes)
