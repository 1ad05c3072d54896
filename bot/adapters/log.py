"""Log lines: JSON outside a terminal, readable in one; tokens are cut out wherever they stand."""

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

SECRET = re.compile(
    r"x(?:ox[a-z]|app)-[A-Za-z0-9-]+"
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|(?<=://)[^\s/@]*:[^\s/@]+(?=@)"
)
HIDDEN = "[hidden]"
Event = MutableMapping[str, Any]


def hide(text: str) -> str:
    """The text without Slack tokens, authorization headers, and passwords in addresses."""
    return SECRET.sub(HIDDEN, text)


def logger() -> Any:
    """The process' logger; bound to the configuration at its first line."""
    return structlog.get_logger()


def configure(level: str) -> None:
    """Set up structlog and the standard library's logging once, for the whole process."""
    threshold = logging.getLevelNamesMapping()[level.upper()]
    readable = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    tail: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if readable
        else [structlog.processors.format_exc_info, _hide_all, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *([_hide_all] if readable else []), *tail],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _hide_all, *tail],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


def _hide_all(_logger: object, _method: str, event: Event) -> Event:
    """Hide secrets in every string of an event, tracebacks included."""
    return {key: hide(value) if isinstance(value, str) else value for key, value in event.items()}
