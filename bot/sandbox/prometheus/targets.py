"""What is scraped: `JOB=URL` or `JOB/INSTANCE=URL`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Target:
    """One page to scrape, and the `job` and `instance` labels of its series."""

    job: str
    instance: str
    url: str


def target(text: str) -> Target:
    """Read one `--target` option; without an instance it is the host and port of the URL.

    Raises:
        ValueError: it has another form.
    """
    name, separator, url = text.partition("=")
    parts = urlsplit(url)
    job, _, instance = name.partition("/")
    if not separator or not job or parts.scheme != "http" or not parts.netloc:
        raise ValueError(f"expected JOB=http://host:port/path or JOB/INSTANCE=..., not {text!r}")
    return Target(job, instance or parts.netloc, url)
