"""Data to calibrate with: a folder of photographs, or an array in a .npy or .npz file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from PIL import Image

from relcompile.errors import CalibrationError
from relcompile.files import UNREADABLE_ARRAY
from relcompile.metadata import Preprocessing
from relcompile.pictures.images import load_image, preprocess

Array: TypeAlias = np.ndarray[Any, Any]
_ARRAYS = (".npy", ".npz")


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
        sizes = [f"{file.relative_to(self.root)} {file.stat().st_size}" for file in self.files]
        return _hash("\n".join([*sizes, str(self.preprocessing), str(self.size)]))

    def batch(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        arrays = [preprocess(load_image(file), self.preprocessing, self.size)[0] for file in self.files[start:stop]]
        return {self.name: torch.from_numpy(np.concatenate(arrays))}


@dataclass(frozen=True)
class Arrays:
    """Arrays of the model's inputs, as the model takes them, the samples on axis 0."""

    arrays: Mapping[str, Array]
    samples: range

    @property
    def count(self) -> int:
        return len(self.samples)

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(str(self.samples).encode())
        for name, array in self.arrays.items():
            digest.update(f"{name} {array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def batch(self, start: int, stop: int) -> dict[str, torch.Tensor]:
        chosen = list(self.samples[start:stop])
        return {name: torch.from_numpy(np.ascontiguousarray(array[chosen])) for name, array in self.arrays.items()}


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
    if path.suffix.lower() not in _ARRAYS and path.exists():
        raise CalibrationError(f"calibration data: {path} is neither a folder of photographs nor a .npy or .npz file")
    arrays = _read_arrays(path, names)
    for name, example in examples.items():
        _check_array(path, arrays, name, example)
    counts = sorted({len(array) for array in arrays.values()})
    if len(counts) != 1 or counts == [0]:
        raise CalibrationError(f"calibration data: {path} holds {counts} samples; want one number above 0")
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
    suffixes = Image.registered_extensions()
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        raise CalibrationError(f"calibration data: there are no photographs in {path}")
    height, width = example.shape[2:]
    return ImageFolder(tuple(files[:: _stride(len(files), limit)]), path, preprocessing, name, (height, width))


def _read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """Arrays by input name; a single array needs no name."""
    try:
        if path.suffix.lower() == ".npy":
            return {names[0]: np.load(path, mmap_mode="r", allow_pickle=False)}
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except UNREADABLE_ARRAY as error:
        raise CalibrationError(f"calibration data: {path} cannot be read: {error}") from error
    return {names[0]: next(iter(arrays.values()))} if len(arrays) == 1 else arrays


def _check_array(path: Path, arrays: Mapping[str, Array], name: str, example: torch.Tensor) -> None:
    """The array for one input has its shape and dtype."""
    if name not in arrays:
        raise CalibrationError(f"calibration data: {path} has no array {name!r}; it has {', '.join(arrays)}")
    array, dtype = arrays[name], str(example.dtype).removeprefix("torch.")
    if array.shape[1:] != tuple(example.shape[1:]) or str(array.dtype) != dtype:
        wanted = f"(samples, {', '.join(map(str, example.shape[1:]))}) {dtype}"
        raise CalibrationError(f"calibration data: {path} holds {array.shape} {array.dtype}, but --input says {wanted}")


def _stride(total: int, limit: int | None) -> int:
    if limit is not None and limit < 1:
        raise CalibrationError(f"--samples {limit} must be at least 1")
    return 1 if limit is None else -(-total // limit)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
