"""Calibration files: tensors in safetensors, and one JSON object that says what they belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch

from relcompile.errors import CalibrationError
from relcompile.files import atomic_path

_KEY: Final = "relcompile"
_FORMAT: Final = 1
HOW_TO: Final = "relcompile calibrate MODEL DATA --rule patternattribution -o patterns.safetensors"


@dataclass(frozen=True, eq=False)
class Calibration:
    """One pattern for every affine layer of a model.

    Attributes:
        patterns: by layer name, in the layout of the layer's weight (batch norm merged).
        weights_sha256: checksum of the model they were estimated for.
        estimator: "relu" or "linear".
        samples: how many samples they were estimated from.
    """

    patterns: Mapping[str, torch.Tensor] = field(repr=False)
    weights_sha256: str
    estimator: str
    samples: int

    def save(self, path: Path | str) -> None:
        """Write it; the file appears whole or not at all.

        Raises:
            ExportError: it cannot be written.
        """
        facts = {"weights_sha256": self.weights_sha256, "estimator": self.estimator, "samples": self.samples}
        write_tensors(Path(path), "calibration", self.patterns, facts)

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Read what `save` wrote.

        Raises:
            CalibrationError: the file cannot be read, or is something else.
        """
        patterns, facts = read_tensors(Path(path), "calibration")
        return cls(patterns, str(facts["weights_sha256"]), str(facts["estimator"]), int(facts["samples"]))

    def require(self, weights_sha256: str) -> None:
        """Refuse a model with other weights.

        Raises:
            CalibrationError: the checksums differ.
        """
        if weights_sha256 != self.weights_sha256:
            raise CalibrationError(
                f"the calibration belongs to a model with other weights (sha256 {self.weights_sha256[:12]}..., the "
                f"model has {weights_sha256[:12]}...); make one for this model: {HOW_TO}"
            )


def write_tensors(path: Path, kind: str, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and the JSON object `facts`, whole or not at all."""
    text = json.dumps({"kind": kind, "format": _FORMAT, **facts}, sort_keys=True)
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_path(path) as temporary:
        safetensors.torch.save_file(contiguous, temporary, {_KEY: text})


def read_tensors(path: Path, kind: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and facts of a file that `write_tensors` wrote as this kind.

    Raises:
        CalibrationError: it did not.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a file is no mapping)
    except FileNotFoundError as error:
        raise CalibrationError(f"{path}: there is no such file; make one: {HOW_TO}") from error
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise CalibrationError(f"{path}: not a calibration file: {error}; make one: {HOW_TO}") from error
    if facts.get("kind") != kind or facts.get("format") != _FORMAT:
        raise CalibrationError(f"{path}: a safetensors file, but not a {kind} of relcompile; make one: {HOW_TO}")
    return tensors, facts
