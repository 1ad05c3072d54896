"""Names of people and clusters cannot break out of a query, and placeholders land where they are meant to."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.analysis.promql import fill, literal, over, quote, selector, template_errors, uses

hostile = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.text(
    st.sampled_from(list("\"\\\n\r\t'`{}[]().*+?|^$=~!,a ")), max_size=12
)
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "'": "'"}


def unquoted(text: str, position: int = 0) -> tuple[str, int]:
    """Read a PromQL string literal as Prometheus' lexer does: (value, position after it)."""
    mark, value, position = text[position], "", position + 1
    while text[position] != mark:
        assert text[position] != "\n", "an unescaped line end ends the query"
        if text[position] == "\\" and mark != "`":
            value += _UNESCAPED[text[position + 1]]
            position += 1
        else:
            value += text[position]
        position += 1
    return value, position + 1


@given(hostile)
def test_a_quoted_value_reads_back_as_itself_and_ends_where_it_should(value: str) -> None:
    """Whatever is in a label value, the literal means it and nothing follows it."""
    literal_text = quote(value)
    assert unquoted(literal_text) == (value, len(literal_text))


@given(hostile, hostile)
def test_a_pattern_matches_its_own_name_and_no_other(value: str, other: str) -> None:
    """Dots, bars and brackets in names are not regular expressions."""
    pattern = re.compile(literal(value))
    assert pattern.fullmatch(value)
    assert bool(pattern.fullmatch(other)) == (other == value)


@given(hostile)
def test_a_selector_holds_one_matcher_whatever_the_value(value: str) -> None:
    """A value cannot add matchers, close the braces or change the metric."""
    text = selector("m", {"a": value})
    read, end = unquoted(text, len("m{a="))
    assert (read, text[end:]) == (value, "}")


def test_selectors_and_windows_are_canonical() -> None:
    """Equal questions have equal texts: values sorted, durations in seconds."""
    assert selector("m", {"a": "x", "b": ("z.1", "y")}) == 'm{a="x",b=~"y|z\\\\.1"}'
    assert selector("m", {"b": ("y", "y")}) == 'm{b="y"}'
    assert over("m", 120) == "m[120s]"
    assert over("m", 7200, 60) == "m[7200s:60s]"


@given(hostile)
def test_a_filled_template_keeps_its_shape(value: str) -> None:
    """In double and single quotes the value is exactly the value, after =~ exactly that name."""
    template = 'sum(rate(x{a="{{canary}}",b=\'{{canary}}\',c=~"{{canary}}"}[{{window}}]))'
    text = fill(template, {"canary": value, "window": "60s"})
    first, position = unquoted(text, text.index('"'))
    assert text[position : position + 3] == ",b="
    second, position = unquoted(text, position + 3)
    assert text[position : position + 4] == ",c=~"
    third, position = unquoted(text, position + 4)
    assert (first, second, third) == (value, value, literal(value))
    assert text[position:] == "}[60s]))"


def test_template_errors_name_each_placeholder_and_where() -> None:
    """Unknown names and placeholders outside quotes are all reported, a good template not at all."""
    assert template_errors('sum(rate(x{v="{{canary}}",s="{{service}}"}[{{window}}]))') == ()
    assert template_errors("  ") == ("the query is empty",)
    unknown, outside = template_errors('x{v="{{version}}"} > {{stable}}')
    assert "unknown placeholder {{version}} at position 5" in unknown
    assert "must stand inside a quoted label value" in outside


@pytest.mark.parametrize(
    ("template", "used"), [('x{v="{{canary}}"}', True), ('x{v="{{ canary }}"}', True), ("x", False)]
)
def test_a_template_tells_whether_it_compares_sides(template: str, used: bool) -> None:
    """Only a template that names the canary can be asked for stable as well."""
    assert uses(template, "canary") is used
