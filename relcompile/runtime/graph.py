"""A file that is open in ONNX Runtime: arrays in, arrays out, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from relcompile.errors import RuntimeUnavailableError
from relcompile.files.records import MANY, InputRecord
from relcompile.runtime.feeds import Array
from relcompile.runtime.session import described


@dataclass(frozen=True, eq=False)
class Graph:
    """An open file. Several threads may run it at the same time.

    Args:
        session: ONNX Runtime's.
        names: The outputs that are computed, in their order.
        run_options: ONNX Runtime's, of every run; or None.
        weights: The file beside that holds the weights; None if they are in the file itself.
    """

    session: Any
    names: tuple[str, ...]
    run_options: Any = None
    weights: Path | None = None

    @property
    def inputs(self) -> tuple[InputRecord, ...]:
        """What the graph reads."""
        return described(self.session.get_inputs())

    @property
    def outputs(self) -> tuple[InputRecord, ...]:
        """What it computes, by `names`."""
        found = {record.name: record for record in described(self.session.get_outputs())}
        return tuple(found[name] for name in self.names)

    @cached_property
    def batched(self) -> frozenset[str]:
        """The inputs that have one entry a row."""
        return frozenset(record.name for record in self.inputs if record.shape[:1] == ("batch",))

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that ONNX Runtime really uses, the preferred one first."""
        return tuple(self.session.get_providers())

    def warm_up(self) -> bool:
        """Run once on zeros; whether there was a run, see `ProductionExplainer.warm_up`."""
        sizes = {"batch": 1, MANY: 1}
        shapes = [[sizes.get(s, 0) if isinstance(s, str) else s for s in record.shape] for record in self.inputs]
        if any(0 in shape for shape in shapes):
            return False
        self.run({r.name: np.zeros(shape, r.dtype) for r, shape in zip(self.inputs, shapes, strict=True)})
        return True

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs by name, for the graph's inputs by name, unchecked.

        Raises:
            RuntimeUnavailableError: ONNX Runtime failed while it ran.
        """
        try:
            values: list[Array] = self.session.run(list(self.names), dict(feeds), self.run_options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise RuntimeUnavailableError(f"ONNX Runtime failed on {self.providers[0]}: {error}") from error
        return dict(zip(self.names, values, strict=True))
