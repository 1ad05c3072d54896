"""Log lines: JSON outside a terminal, readable in one; secrets are cut out wherever they stand."""

import json
import logging
import re
import sys
from collections.abc import Iterable, MutableMapping
from typing import Any

import structlog

from bot.adapters.hiding import hide

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
Event = MutableMapping[str, Any]


def logger() -> Any:
    """The process' logger; bound to the configuration at its first line."""
    return structlog.get_logger()


def configure(level: str, secrets: Iterable[str] = ()) -> None:
    """Set up structlog and the standard library's logging once, for the whole process.

    `secrets` are hidden wherever they stand. It is done on the finished line: values in lists, objects that show
    themselves, and tracebacks are all text by then. Tracebacks are the plain ones, without local variables.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    readable = sys.stderr.isatty()
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    tail: list[structlog.typing.Processor] = (
        [_on_one_line, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if readable
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    tail.append(_Hide(secrets, escaped=not readable))
    structlog.configure(
        processors=[*shared, *tail],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *tail],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(threshold, logging.WARNING), force=True)


class _Hide:
    """The last processor: takes secrets out of a rendered line; `escaped` when it is JSON."""

    def __init__(self, secrets: Iterable[str], *, escaped: bool) -> None:
        known = tuple(secrets)
        self._secrets = (*known, *(json.dumps(one)[1:-1] for one in known)) if escaped else known

    def __call__(self, _logger: object, _method: str, line: Any) -> str:
        return hide(str(line), self._secrets)


def _on_one_line(_logger: object, _method: str, event: Event) -> Event:
    """Line ends and control characters of a terminal made visible, so that no text can pass for another line."""
    return {key: _shown(value) if isinstance(value, str) else value for key, value in event.items()}


def _shown(text: str) -> str:
    return _CONTROL.sub(lambda found: repr(found[0])[1:-1], text)
