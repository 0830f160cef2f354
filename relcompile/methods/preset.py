"""One row of the tables of names: what is called so, and what it needs."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from relcompile.calibration.store import Calibration
from relcompile.methods.rules.parameters import Bounds
from relcompile.preprocessing import Preprocessing

Made = TypeVar("Made", covariant=True)
Need: TypeAlias = Literal["bounds", "calibration"]


@dataclass(frozen=True)
class Given:
    """What is known beside the name of a rule; None where it is not.

    Attributes:
        bounds: (low, high) of the input.
        calibration: what was learnt from data.
    """

    bounds: Bounds | None = None
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Preset(Generic[Made]):
    """A name, and what is called so.

    Attributes:
        name: as `--rule` or `--layer` take it.
        build: makes it; those of its arguments that have a number or a text by default are what a user may set.
        needs: the attributes of `Given` that it takes besides.
    """

    name: str
    build: Callable[..., Made]
    needs: tuple[Need, ...] = ()

    @property
    def parameters(self) -> dict[str, float | str]:
        """Defaults of what a user may set, by name; the first needs no name ("epsilon=0.25")."""
        declared = inspect.signature(self.build).parameters.values()
        return {p.name: p.default for p in declared if isinstance(p.default, int | float | str)}

    def made(self, given: Given, **parameters: float | str) -> Made:
        """The rule or composite with these parameters."""
        keywords: dict[str, Any] = {need: getattr(given, need) for need in self.needs}
        return self.build(**keywords, **parameters)


def bounds_of(preprocessing: Preprocessing | None) -> Bounds | None:
    """The values that black and white pixels become, per channel; None if the preprocessing is not known."""
    return None if preprocessing is None else preprocessing.bounds
