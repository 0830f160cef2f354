"""Calibration files: tensors in safetensors, and one JSON object that says what they belong to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import safetensors
import safetensors.torch
import torch

from relcompile.errors import CalibrationError, ExplainerFileError, ExportError
from relcompile.files.paths import atomic_path, open_input
from relcompile.files.typed_json import decode_record
from relcompile.preprocessing import Preprocessing

ESTIMATORS: Final = ("relu", "linear")
LARGEST_CALIBRATION: Final = 2**36  # bytes; sums in float64 take four times what the weights of a model take
_KEY: Final = "relcompile"
_FORMAT: Final = 2
_CHECKSUM: Final = "sha256"
_SHA256: Final = re.compile("[0-9a-f]{64}")
_DTYPES: Final = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_MOST_SAMPLES: Final = 2**53
_LONGEST_FACTS: Final = 10_000  # characters
HOW_TO: Final = "relcompile calibrate MODEL DATA --rule patternattribution -o patterns.safetensors"


@dataclass(frozen=True)
class Kind:
    """What a file of tensors holds.

    Attributes:
        name: in it, and in messages.
        how_to: the command that makes one.
    """

    name: str
    how_to: str


CALIBRATION: Final = Kind("calibration", HOW_TO)


@dataclass(frozen=True, eq=False)
class Calibration:
    """One pattern for every affine layer of a model.

    Attributes:
        patterns: by layer name, in the layout of the layer's weight (batch norm merged).
        weights_sha256: checksum of the model they were estimated for.
        estimator: "relu" or "linear".
        samples: how many samples they were estimated from.
        preprocessing: how photographs became these samples; None for arrays.
    """

    patterns: Mapping[str, torch.Tensor] = field(repr=False)
    weights_sha256: str
    estimator: str
    samples: int
    preprocessing: Preprocessing | None = None

    def save(self, path: Path | str) -> None:
        """Write it; the file appears whole or not at all.

        Raises:
            ExportError: it cannot be written.
        """
        facts = {name: getattr(self, name) for name in ("weights_sha256", "estimator", "samples")}
        facts["preprocessing"] = None if self.preprocessing is None else asdict(self.preprocessing)
        write_tensors(Path(path), CALIBRATION, self.patterns, facts)

    @classmethod
    def load(cls, path: Path | str) -> Calibration:
        """Read what `save` wrote.

        Raises:
            CalibrationError: the file cannot be read, is damaged, or is something else.
        """
        patterns, facts = read_tensors(Path(path), CALIBRATION)
        digest, estimator, samples = (facts.get(name) for name in ("weights_sha256", "estimator", "samples"))
        if not (isinstance(digest, str) and _SHA256.fullmatch(digest)):
            raise CalibrationError(f"{path}: weights_sha256 is {_shown(digest)}, not a checksum")
        if estimator not in ESTIMATORS:
            raise CalibrationError(f"{path}: estimator is {_shown(estimator)}, not one of {', '.join(ESTIMATORS)}")
        broken = [name for name, p in patterns.items() if p.dtype not in _DTYPES or not p.isfinite().all()]
        if broken:
            raise CalibrationError(f"{path}: the pattern of layer {broken[0]} is not finite, or not of real numbers")
        preprocessing = _preprocessing(path, facts.get("preprocessing"))
        return cls(patterns, digest, str(estimator), count_of(path, samples), preprocessing)

    def require(self, weights_sha256: str, preprocessing: Preprocessing | None = None) -> None:
        """Refuse a model with other weights, and photographs that become other inputs.

        Raises:
            CalibrationError: the checksums differ, or the preprocessing does, where both are known.
        """
        if preprocessing is not None and self.preprocessing not in (None, preprocessing):
            raise CalibrationError(
                f"the calibration was made with {self.preprocessing}, and not with {preprocessing}; leave the options "
                "of preprocessing out, or calibrate with these"
            )
        if weights_sha256 != self.weights_sha256:
            raise CalibrationError(
                f"the calibration belongs to a model with other weights (sha256 {self.weights_sha256[:12]}..., the "
                f"model has {weights_sha256[:12]}...); make one for this model: {HOW_TO}"
            )


def _preprocessing(path: Path | str, stored: object) -> Preprocessing | None:
    try:
        return None if stored is None else decode_record(Preprocessing, stored, "preprocessing")
    except ExplainerFileError as error:
        raise CalibrationError(f"{path}: {error}") from error


def count_of(path: Path | str, samples: object, limit: int = _MOST_SAMPLES) -> int:
    """The number of samples that a file was made from.

    Raises:
        CalibrationError: it is no such number.
    """
    if type(samples) is not int or not 0 < samples <= limit:
        raise CalibrationError(f"{path}: samples is {_shown(samples)}, not a number from 1 to {limit}")
    return samples


def write_tensors(path: Path, kind: Kind, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and the JSON object `facts`, whole or not at all, with a checksum of both.

    Raises:
        ExportError: it cannot be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    signed = {"kind": kind.name, "format": _FORMAT, **facts}
    text = json.dumps({**signed, _CHECKSUM: _digest(contiguous, signed)}, sort_keys=True)
    with atomic_path(path) as temporary:
        try:
            safetensors.torch.save_file(contiguous, temporary, {_KEY: text})
        except safetensors.SafetensorError as error:  # a full disk, which other libraries call an OSError
            raise ExportError(f"cannot write {temporary}: {error}") from error


def read_tensors(path: Path, kind: Kind) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    """The tensors and facts of a file that `write_tensors` wrote as this kind.

    Raises:
        CalibrationError: it did not, or the file was changed since.
    """
    try:
        open_input(path, f"the {kind.name}", LARGEST_CALIBRATION, CalibrationError).close()
        with safetensors.safe_open(path, "pt") as file:
            facts = _parsed((file.metadata() or {}).get(_KEY, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a file is no mapping)
    except CalibrationError as error:
        raise CalibrationError(f"{error}; make one: {kind.how_to}") from error
    except (OSError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise CalibrationError(f"{path}: not a {kind.name} file: {error}; make one: {kind.how_to}") from error
    if facts.get("kind") != kind.name or facts.get("format") != _FORMAT:
        raise CalibrationError(
            f"{path}: a safetensors file, but not a {kind.name} of relcompile; make one: {kind.how_to}"
        )
    if facts.pop(_CHECKSUM, None) != _digest(tensors, facts):
        raise CalibrationError(f"{path}: damaged: its checksum is that of other content; make it again: {kind.how_to}")
    return tensors, facts


def _parsed(text: str) -> dict[str, object]:
    """The JSON object; ValueError or RecursionError if it is none."""
    if len(text) > _LONGEST_FACTS:
        raise ValueError(f"its facts have {len(text):,} characters")
    facts: object = json.loads(text)
    if not isinstance(facts, dict):
        raise ValueError(f"its facts are {_shown(facts)}, not a JSON object")
    return cast("dict[str, object]", facts)


def _digest(tensors: Mapping[str, torch.Tensor], facts: Mapping[str, object]) -> str:
    """A checksum of names, dtypes, shapes, values and facts."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _shown(value: object) -> str:
    """A value of a file, for a message: short, whatever it is."""
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else json.dumps(value)[:80]
