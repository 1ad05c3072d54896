"""Secrets cut out of texts: those that are known by their value, the others by their form."""

import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import parse_qsl, quote, unquote, urlsplit

HIDDEN = "***"
SHORTEST = 4
"""A secret of fewer characters is not looked for: half of every sentence would be hidden."""
_FORMS = re.compile(
    r"x(?:ox[a-z]|app)-[A-Za-z0-9-]+"
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=://)[^\s/@]*:[^\s/@]+(?=@)"
    r"|\beyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"
    r"|(?<=[?&]ticket=)[^&\s\"')]+"
    r"|(?<=://hooks\.slack\.com/)[^\s\"')]+"
)


def hide(text: str, secrets: Iterable[str] = ()) -> str:
    """The text without these secrets, and without Slack tokens, authorization headers, tickets, and passwords in
    addresses. Longer secrets are looked for first, in case one is part of another."""
    for secret in sorted((one for one in secrets if len(one) >= SHORTEST), key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return _FORMS.sub(HIDDEN, text)


def forms(secret: str, username: str = "") -> tuple[str, ...]:
    """A secret as it may stand in a text: as it is, quoted for an address, and in basic authentication."""
    if not secret:
        return ()
    basic = b64encode(f"{username}:{secret}".encode()).decode()
    return (secret, quote(secret, safe=""), basic)


def credentials(address: str) -> tuple[str, ...]:
    """The forms of the passwords in an address, none when it has none or cannot be taken apart."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return ()
    password = parts.password or ""
    found = (*forms(unquote(password), unquote(parts.username or "")), password) if password else ()
    return (*found, *(form for name, text in parse_qsl(parts.query) if "password" in name for form in forms(text)))
