"""The catalog as it changes on disk: a good one replaces the last, a bad one is reported and changes nothing."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bot.catalog.errors import CatalogError, CatalogErrors
from bot.catalog.model import Catalog
from bot.catalog.reading import load


class Poll(StrEnum):
    """What a look at the file gave."""

    UNCHANGED = "unchanged"
    RELOADED = "reloaded"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class _Seen:
    """By what a change is told: a mounted ConfigMap is another file under the same path after a change."""

    mtime_ns: int
    size: int
    inode: int


class Reloading:
    """The catalog of a file, looked at again when asked. Without a path it is a catalog of defaults for ever.

    The first reading is strict: its errors are raised. After that `current` is always the last good one, and `errors`
    says what is wrong with the file now, None when nothing is.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen = _look(path)
        self.current: Catalog = load("") if path is None else _read(path)
        self.errors: CatalogErrors | None = None

    def poll(self) -> Poll:
        """Read the file again if it has changed; a change is reported once, also a bad one. Blocks for a small read."""
        if self._path is None:
            return Poll.UNCHANGED
        seen = _look(self._path)
        if seen == self._seen:
            return Poll.UNCHANGED
        self._seen = seen
        try:
            self.current = _read(self._path)
        except CatalogErrors as errors:
            self.errors = errors
            return Poll.REFUSED
        self.errors = None
        return Poll.RELOADED


def _look(path: Path | None) -> _Seen | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return _Seen(found.st_mtime_ns, found.st_size, found.st_ino)


def _read(path: Path) -> Catalog:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        raise CatalogErrors(str(path), (CatalogError("", 1, f"cannot be read: {why}"),)) from error
    return load(text, str(path))
