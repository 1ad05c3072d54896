"""What is wrong with a catalog: where, and what."""

from dataclasses import dataclass

from bot.errors import CanaryError


@dataclass(frozen=True, slots=True)
class CatalogError:
    """One error: the path of keys (`services.payments.plan`), the line from 1, and what was wrong."""

    path: str
    line: int
    message: str


class CatalogErrors(CanaryError):
    """Everything that is wrong with one catalog, in order of lines."""

    def __init__(self, source: str, errors: tuple[CatalogError, ...]) -> None:
        self.source = source
        self.errors = tuple(sorted(errors, key=lambda error: (error.line, error.path)))
        super().__init__("\n".join(self._line(error) for error in self.errors))

    def _line(self, error: CatalogError) -> str:
        place = f"{self.source}:{error.line}"
        return f"{place}: {error.path}: {error.message}" if error.path else f"{place}: {error.message}"
