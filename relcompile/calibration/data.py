"""Data to calibrate with: a folder of photographs, or an array in a .npy or .npz file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import torch

from relcompile.errors import CalibrationError
from relcompile.files.arrays import map_array, native, read_arrays
from relcompile.files.paths import open_input
from relcompile.pictures.images import LARGEST_PHOTOGRAPH, load_image, photographs, preprocess
from relcompile.preprocessing import Preprocessing

Array: TypeAlias = np.ndarray[Any, Any]
_ARRAYS = (".npy", ".npz")
_WHAT: Final = "the data"
_AT_ONCE: Final = 256  # samples of which the checksum is taken


class Data(Protocol):
    """Samples that a model takes, in a fixed order."""

    @property
    def count(self) -> int:
        """How many samples there are."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for equal data in equal order."""
        ...

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How photographs become samples, if they are photographs."""
        ...

    def batch(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        """Samples `start` to `stop` of every input."""
        ...


@dataclass(frozen=True)
class ImageFolder:
    """Photographs, preprocessed as for `relcompile explain`.

    Args:
        files: the photographs, in order.
        root: the folder that they lie in.
        preprocessing: how a photograph becomes the input.
        name: of the model's input, of shape (N, 3, *size).
    """

    files: tuple[Path, ...]
    root: Path
    preprocessing: Preprocessing
    name: str
    size: tuple[int, int]

    @property
    def count(self) -> int:
        return len(self.files)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self.preprocessing} {self.size}".encode())
        for file in self.files:
            with open_input(file, "the image", LARGEST_PHOTOGRAPH, CalibrationError) as content:
                one = hashlib.file_digest(content, "sha256").hexdigest()
            digest.update(f"\n{one} ".encode() + os.fsencode(file.relative_to(self.root)))
        return digest.hexdigest()

    def batch(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        arrays = [preprocess(load_image(file), self.preprocessing, self.size)[0] for file in self.files[start:stop]]
        return {self.name: torch.from_numpy(np.concatenate(arrays))}


@dataclass(frozen=True)
class Arrays:
    """Arrays of the model's inputs, as the model takes them, the samples on axis 0."""

    arrays: Mapping[str, Array]
    samples: range

    @property
    def preprocessing(self) -> None:
        return None

    @property
    def count(self) -> int:
        return len(self.samples)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(str(self.samples).encode())
        for name, array in self.arrays.items():
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            for start in range(0, len(array), _AT_ONCE):
                digest.update(np.ascontiguousarray(array[start : start + _AT_ONCE]).tobytes())
        return digest.hexdigest()

    def batch(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        chosen = list(self.samples[start:stop])
        return {name: torch.from_numpy(native(array[chosen])) for name, array in self.arrays.items()}


def open_arrays(path: Path, names: Sequence[str], examples: Mapping[str, torch.Tensor], limit: int | None) -> Arrays:
    """The array in a .npy file, or the arrays in a .npz file, one per input.

    Args:
        path: the file.
        names: of the model's inputs.
        examples: inputs whose shape and dtype the arrays must have; those without an example are taken as they are.
        limit: use at most so many samples, evenly spaced.

    Raises:
        CalibrationError: it cannot be read, is empty, or does not fit the examples.
    """
    if path.suffix.lower() not in _ARRAYS and os.path.exists(path):
        raise CalibrationError(f"{_WHAT} {path} is neither a folder of photographs nor a .npy or .npz file")
    arrays = _read_arrays(path, names)
    if any(array.ndim == 0 for array in arrays.values()):
        raise CalibrationError(f"{_WHAT} {path} holds one number, not an array with the samples on axis 0")
    for name, example in examples.items():
        _check_array(path, arrays, name, example)
    counts = sorted({len(array) for array in arrays.values()})
    if len(counts) != 1 or counts == [0]:
        raise CalibrationError(f"{_WHAT} {path} holds {counts} samples; want one number above 0")
    return Arrays(arrays, range(counts[0])[:: _stride(counts[0], limit)])


def open_folder(
    path: Path, examples: Mapping[str, torch.Tensor], preprocessing: Preprocessing, limit: int | None
) -> ImageFolder:
    """The photographs in a folder and in the folders in it, in the order of their paths.

    Raises:
        CalibrationError: there are none, or the model does not take one photograph of so many channels.
    """
    name, example = next(iter(examples.items()))
    if len(examples) != 1 or example.dim() != 4 or example.shape[1] != len(preprocessing.mean):
        shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in examples.items())
        raise CalibrationError(
            f"the model takes {shapes}, not one photograph with {len(preprocessing.mean)} channels (as in --mean); "
            "give its data as a .npz file"
        )
    preprocessing.require_input({name: tuple(example.shape)})
    files = photographs(path)
    if not files:
        raise CalibrationError(f"{_WHAT}: there are no photographs in {path}")
    height, width = example.shape[2:]
    return ImageFolder(tuple(files[:: _stride(len(files), limit)]), path, preprocessing, name, (height, width))


def files_read(path: Path) -> list[Path]:
    """The files that calibrating with `path` reads, before they are opened."""
    return photographs(path) if os.path.isdir(path) else [path]


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Arrays by input name; a single array needs no name."""
    if path.suffix.lower() == ".npy":
        return {names[0]: map_array(path, _WHAT, error=CalibrationError)}
    arrays = read_arrays(path, _WHAT, CalibrationError)
    return {names[0]: next(iter(arrays.values()))} if len(arrays) == 1 else arrays


def _check_array(path: Path, arrays: Mapping[str, Array], name: str, example: torch.Tensor) -> None:
    """The array for one input has its shape and dtype."""
    if name not in arrays:
        raise CalibrationError(f"{_WHAT} {path} has no array {name!r}; it has {', '.join(arrays)}")
    array, dtype = arrays[name], str(example.dtype).removeprefix("torch.")
    if array.shape[1:] != tuple(example.shape[1:]) or array.dtype.name != dtype:
        wanted = f"(samples, {', '.join(map(str, example.shape[1:]))}) {dtype}"
        raise CalibrationError(f"{_WHAT} {path} holds {array.shape} {array.dtype}, but --input says {wanted}")


def _stride(total: int, limit: int | None) -> int:
    if limit is not None and limit < 1:
        raise CalibrationError(f"--samples {limit} must be at least 1")
    return 1 if limit is None else -(-total // limit)
