"""Dataclasses of the pure rooms: frozen for the type checker, plain at run time.

A frozen dataclass sets each of its fields through `object.__setattr__`. A look makes some hundred values, and that was
a tenth of what it cost. Nothing may change a value all the same: to `mypy --strict`, a part of `make check`, they are
frozen.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses
    from functools import partial

    def dataclass(cls=None, /, *, frozen=False, **given):
        """As `dataclasses.dataclass`; one that is said to be frozen is compared and hashed by its fields."""
        made = partial(dataclasses.dataclass, unsafe_hash=frozen, **given)
        return made if cls is None else made(cls)


__all__ = ["dataclass"]
