"""Dataclasses of the pure rooms: frozen for the type checker, plain at run time.

A frozen dataclass sets each of its fields through `object.__setattr__`. A look makes some hundred values, and that was
a tenth of what it cost. Nothing may change a value all the same: to `mypy --strict`, a part of `make check`, they are
frozen.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass, replace
else:
    import dataclasses
    from functools import cache, partial
    from operator import attrgetter

    def dataclass(cls=None, /, *, frozen=False, **given):
        """As `dataclasses.dataclass`; one that is said to be frozen is compared and hashed by its fields."""
        made = partial(dataclasses.dataclass, unsafe_hash=frozen, **given)
        return made if cls is None else made(cls)

    def replace(value, /, **changes):
        """As `dataclasses.replace`, for values that are made from all of their fields."""
        made = type(value)(*_fields(type(value))(value))
        for name, changed in changes.items():
            object.__setattr__(made, name, changed)
        return made

    @cache
    def _fields(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return attrgetter(*names) if len(names) > 1 else lambda value: [getattr(value, name) for name in names]


__all__ = ["dataclass", "replace"]
