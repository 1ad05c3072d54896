"""A question travels as a form, whatever characters it is made of."""

from urllib.parse import parse_qsl, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.adapters.prometheus import form

HOSTILE = st.text(alphabet=st.sampled_from("%25+& =;#\\\"'{}|~é\n\x00𝕏a"), max_size=20)


@given(st.dictionaries(st.text(min_size=1, max_size=8) | HOSTILE.filter(bool), st.text(max_size=40) | HOSTILE))
def test_a_form_is_read_as_what_was_asked(fields: dict[str, str]) -> None:
    """Neither a name nor a value can end its field, begin another, or become anything else."""
    body = form(fields).decode("ascii")
    assert dict(parse_qsl(body, keep_blank_values=True, strict_parsing=bool(fields))) == fields
    assert body.replace("%20", "+") == urlencode(fields)


def test_half_a_character_is_an_error_and_no_other_question() -> None:
    """What UTF-8 cannot say is not asked."""
    with pytest.raises(UnicodeEncodeError):
        form({"query": "up\ud800"})
