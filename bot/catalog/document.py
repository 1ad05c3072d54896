"""YAML to plain data, each value with its line; nothing but YAML's core schema.

PyYAML's safe loader reads YAML 1.1: `off` is False, `1:30` is ninety, `2027-01-01` is a date. Here only the core schema
of YAML 1.2 is resolved, other tags are refused, and so are duplicate keys (the last would win in silence) and aliases
(a few lines of them can stand for billions of values).
"""

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from bot.catalog.errors import CatalogError, CatalogErrors

MAX_BYTES = 1_000_000
_MAX_DEPTH = 20
_CORE = "tag:yaml.org,2002:"

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """Plain data and the line (from 1) of every path in it; `errors` as far as the structure is wrong."""

    data: dict[str, Any]
    lines: dict[Path, int] = field(default_factory=dict)
    errors: list[CatalogError] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest part of it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def refuse(self, path: Path, message: str) -> None:
        """Note an error, once: a gate for all services is looked at for each of them."""
        error = CatalogError(spelled(path), self.line(path), message)
        if error not in self.errors:
            self.errors.append(error)


class _CoreLoader(yaml.SafeLoader):
    """Resolves YAML 1.2's core schema and nothing else."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own table

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            problem = "aliases (`*name`) are not read here: write the value out, or use `defaults`"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return super().compose_node(parent, index)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
     "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):  # fmt: skip
    _CoreLoader.add_implicit_resolver(_CORE + _tag, re.compile(rf"^(?:{_pattern})$"), list(_first))


def read(text: str, source: str) -> Document:
    """The document of a text; an empty one is an empty mapping.

    Raises:
        CatalogErrors: it is no YAML, too large, or no mapping.
    """
    if len(text.encode()) > MAX_BYTES:
        raise CatalogErrors(source, (CatalogError("", 1, f"larger than {MAX_BYTES // 1_000_000} MB"),))
    try:
        root = _composed(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = str(error.problem or error.context or "cannot be read")
        raise CatalogErrors(source, (CatalogError("", mark.line + 1 if mark else 1, problem),)) from error
    except (yaml.YAMLError, ValueError) as error:
        raise CatalogErrors(source, (CatalogError("", 1, str(error).splitlines()[0]),)) from error
    except RecursionError:
        raise CatalogErrors(source, (CatalogError("", 1, "nested too deeply"),)) from None
    document = Document({})
    if root is None or _is_null(root):
        return document
    if not isinstance(root, yaml.MappingNode):
        raise CatalogErrors(source, (CatalogError("", root.start_mark.line + 1, "expected keys such as `services:`"),))
    data = _plain(root, (), document)
    document.data = data if isinstance(data, dict) else {}
    return document


def _composed(text: str) -> yaml.Node | None:
    loader = _CoreLoader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def spelled(path: Path) -> str:
    """`services.payments.subsets[1]`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == _CORE + "null"


def _plain(node: yaml.Node, path: Path, document: Document) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if len(path) > _MAX_DEPTH:
        document.refuse(path[:3], "nested too deeply")
        return None
    match node:
        case yaml.MappingNode() if node.tag == _CORE + "map":
            return _mapping(node, path, document)
        case yaml.SequenceNode() if node.tag == _CORE + "seq":
            return [_plain(item, (*path, index), document) for index, item in enumerate(node.value)]
        case yaml.ScalarNode():
            return _scalar(node, path, document)
        case _:
            document.refuse(path, f"the tag {node.tag} is not read here")
            return None


def _mapping(node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode) or not key_node.value:
            document.lines[(*path, "?")] = key_node.start_mark.line + 1
            document.refuse((*path, "?"), "a key has to be a word")
            continue
        key = str(key_node.value)
        if key in data:
            line = key_node.start_mark.line + 1
            first = document.lines[(*path, key)]
            document.errors.append(CatalogError(spelled((*path, key)), line, f"is there twice, first on line {first}"))
            continue
        document.lines[(*path, key)] = key_node.start_mark.line + 1
        data[key] = _plain(value_node, (*path, key), document)
    return data


def _scalar(node: yaml.ScalarNode, path: Path, document: Document) -> Any:
    text = str(node.value)
    match node.tag.removeprefix(_CORE):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int" | "float" as kind:
            try:
                return _number(text, kind)
            except ValueError:
                document.refuse(path, f"`{text[:40]}` is no number")
                return None
        case _:
            document.refuse(path, f"the tag {node.tag} is not read here")
            return None


def _number(text: str, kind: str) -> int | float:
    if kind == "int":
        if len(text) > 20:
            raise ValueError("too long")
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text.replace(".inf", "inf").replace(".Inf", "inf").replace(".INF", "inf").replace(".nan", "nan")
                 .replace(".NaN", "nan").replace(".NAN", "nan"))  # fmt: skip
