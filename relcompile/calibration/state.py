"""What an interrupted run over data leaves behind, for the run that goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from relcompile.calibration.store import HOW_TO, Kind, count_of, read_tensors, write_tensors
from relcompile.errors import CalibrationError
from relcompile.files.paths import identity, partial_of

_CALIBRATION_STATE: Final = Kind("calibration state", HOW_TO)


class StateFile:
    """What was found so far, in a file beside the one that is being made.

    Replaces and removes nothing but a state, and none that another run has written meanwhile.

    Args:
        output: the file that is being made.
        folder: where it is written, for another process to move it beside that file and to remove it there; None: this
            one does so.
        kind: what the state is of.

    Raises:
        CalibrationError: the name is taken by something else.
    """

    def __init__(self, output: Path, folder: Path | None = None, kind: Kind = _CALIBRATION_STATE) -> None:
        self.target, self._kind = output, kind
        self.path = partial_of(output)
        self._written = self.path if folder is None else folder / self.path.name
        self._ours = identity(self.path)
        if self.exists:
            self._read()

    @property
    def exists(self) -> bool:
        """Whether there is a state to go on from."""
        return self._ours is not None

    def read(self, facts: Mapping[str, object], total: int) -> tuple[dict[str, torch.Tensor], int]:
        """What was found, and in how many samples.

        Args:
            facts: what the state has to be of.
            total: how many samples there are.

        Raises:
            CalibrationError: it is of something else, or damaged.
        """
        sums, found = self._read()
        changed = [name for name, value in facts.items() if found.get(name) != value]
        if changed:
            raise CalibrationError(f"{self.path} was made with another {', '.join(changed)}; start without --resume")
        return sums, count_of(self.path, found.get("samples"), total)

    def write(self, sums: Mapping[str, torch.Tensor], facts: Mapping[str, object], samples: int) -> None:
        """In place of the state before.

        Raises:
            CalibrationError: another run has taken the name.
            ExportError: it cannot be written.
        """
        waiting = identity(self._written)
        if (waiting is None or waiting != self._ours) and identity(self.path) != self._ours:
            raise CalibrationError(f"{self.path} is of another run, which has begun meanwhile; give another -o")
        write_tensors(self._written, self._kind, sums, {**facts, "samples": samples})
        self._ours = identity(self._written) or identity(self.path)

    def remove(self) -> None:
        """When the run is complete."""
        if self._written == self.path and self.exists and identity(self.path) == self._ours:
            self.path.unlink()
            self._ours = None

    def _read(self) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
        try:
            return read_tensors(self.path, self._kind)
        except CalibrationError as error:
            raise CalibrationError(
                f"{self.path} should hold the state of an interrupted run, and does not: {error}; move it away, or "
                "give another -o"
            ) from error
