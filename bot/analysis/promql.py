"""PromQL as text: selectors whose labels cannot break out of their quotes, windows from a fixed ladder, templates.

Selectors use double quotes and the escapes that every PromQL server knows. Label values come from people and from the
cluster, so they are never pasted in unescaped.
"""

import re
from collections.abc import Mapping

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_ESCAPED = str.maketrans(_ESCAPES)
_LITERALS = str.maketrans({character: f"\\{character}" for character in "\\.+*?()|[]{}^$"})
_PLACEHOLDER = re.compile(r"\{\{\s*([A-Za-z_]*)\s*\}\}")
PLACEHOLDERS = ("service", "namespace", "canary", "stable", "window")


def quote(value: str) -> str:
    """A PromQL string literal in double quotes that means exactly `value`."""
    return f'"{value.translate(_ESCAPED)}"'


def literal(value: str) -> str:
    """An RE2 pattern that matches exactly `value`; still to be quoted."""
    return value.translate(_LITERALS)


def selector(metric: str, labels: Mapping[str, str | tuple[str, ...]]) -> str:
    """`metric{label="value"}`; a tuple of several values becomes an anchored alternation of literals."""
    matchers = []
    for label, value in labels.items():
        values = (value,) if isinstance(value, str) else tuple(sorted(set(value)))
        if len(values) == 1:
            matchers.append(f"{label}={quote(values[0])}")
        else:
            matchers.append(f"{label}=~{quote('|'.join(literal(one) for one in values))}")
    return f"{metric}{{{','.join(matchers)}}}"


def span(seconds: float) -> str:
    """A duration in whole seconds, `120s`."""
    return f"{int(seconds)}s"


def over(expression: str, window_s: int, resolution_s: int = 0) -> str:
    """A raw range `x[120s]`, or with a resolution a subquery `x[7200s:60s]`."""
    return f"{expression}[{span(window_s)}:{span(resolution_s)}]" if resolution_s else f"{expression}[{span(window_s)}]"


def fill(template: str, values: Mapping[str, str]) -> str:
    """Put values into the placeholders of a custom gate's template.

    Inside a string the value is escaped for that string, and after `=~` or `!~` also as a literal pattern, so a name
    with dots or quotes selects that name and nothing else. Outside strings the value is put in as it is, which
    `template_errors` allows for the window only.
    """
    pieces: list[str] = []
    position = 0
    for start, end, name, string_quote, pattern in _placeholders(template):
        pieces.append(template[position:start])
        value = values.get(name, "")
        if string_quote and pattern:
            value = literal(value)
        if string_quote == "`":
            value = value.replace("`", "")
        elif string_quote:
            value = "".join(_ESCAPES.get(character, character) for character in value).replace("'", "\\'")
            value = value if string_quote == "'" else value.replace("\\'", "'")
        pieces.append(value)
        position = end
    pieces.append(template[position:])
    return "".join(pieces)


def uses(template: str, name: str) -> bool:
    """True when the template holds this placeholder."""
    return any(found == name for _, _, found, _, _ in _placeholders(template))


def template_errors(template: str) -> tuple[str, ...]:
    """What is wrong with a custom gate's template, one sentence each; empty when nothing is."""
    errors = [] if template.strip() else ["the query is empty"]
    for start, _, name, string_quote, _ in _placeholders(template):
        if name not in PLACEHOLDERS:
            known = " ".join(f"{{{{{one}}}}}" for one in PLACEHOLDERS)
            errors.append(f"unknown placeholder {{{{{name}}}}} at position {start}; known are {known}")
        elif name != "window" and not string_quote:
            errors.append(f"{{{{{name}}}}} at position {start} must stand inside a quoted label value")
    return tuple(errors)


def _placeholders(template: str) -> list[tuple[int, int, str, str, bool]]:
    """Placeholders as (start, end, name, quote of the string they stand in or "", that string is a pattern).

    In comments there are none, and a quote there opens no string.
    """
    found: list[tuple[int, int, str, str, bool]] = []
    string_quote, pattern, position = "", False, 0
    while position < len(template):
        if template[position] == "#" and not string_quote:
            end = template.find("\n", position)
            position = len(template) if end < 0 else end
            continue
        match = _PLACEHOLDER.match(template, position)
        if match:
            found.append((match.start(), match.end(), match.group(1), string_quote, pattern))
            position = match.end()
            continue
        character = template[position]
        if string_quote:
            if character == "\\" and string_quote != "`":
                position += 2
                continue
            if character == string_quote:
                string_quote = ""
        elif character in "\"'`":
            string_quote = character
            pattern = template[:position].rstrip().endswith(("=~", "!~"))
        position += 1
    return found
