"""What the user gives -> what the graph reads, or an error that says why not."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relcompile.errors import InputSpecError, TargetError
from relcompile.files.records import MANY, InputRecord, MaskRecord, TargetRecord
from relcompile.metadata import Metadata

Array = NDArray[Any]


def inputs_but_target(metadata: Metadata) -> tuple[InputRecord, ...]:
    """Everything that the graph reads beside the target."""
    of_reference = () if metadata.reference_input is None else (metadata.reference_input,)
    return (*metadata.inputs, *(mask.input for mask in metadata.masks), *metadata.noise, *of_reference)


def photographed(metadata: Metadata, inputs: Sequence[Any]) -> tuple[Sequence[Any], tuple[Any, ...]]:
    """The inputs as arrays, and what the model sees of a photograph among them."""
    if len(inputs) != 1 or isinstance(inputs[0], np.ndarray | list | tuple):
        return inputs, ()
    from relcompile.pictures.photographs import Photographs, is_photograph

    if not is_photograph(inputs[0]):
        return inputs, ()
    photographs = Photographs.of(metadata)
    if photographs.assumption is not None:
        raise InputSpecError(
            "the file does not say how a photograph becomes its input: compile it with preprocessing=... (--mean, "
            "--std and so on), or give an array"
        )
    seen = photographs.read(inputs[0])
    return (seen.array,), (seen.view,)


def check_inputs(records: Sequence[InputRecord], arrays: Sequence[Array]) -> tuple[dict[str, Array], int]:
    """The arrays by input name, and the batch size."""
    if len(arrays) != len(records):
        wanted = ", ".join(f"{record.name} {list(record.shape)}" for record in records)
        raise InputSpecError(f"{len(arrays)} inputs were given, but the file takes {len(records)}: {wanted}")
    sizes: dict[str, int] = {}
    feeds = {record.name: _fit(record, array, sizes) for record, array in zip(records, arrays, strict=True)}
    return feeds, sizes.get("batch", (*arrays[0].shape, 1)[0])


def check_target(record: TargetRecord, entry: InputRecord | None, target: object, batch: int) -> Array | None:
    """The target as the graph takes it, or the class that the file always explains."""
    if entry is None and target is not None:
        always = (
            "its own choice"
            if record.is_reported
            else "the best class"
            if record.takes_best
            else f"class {record.index}"
        )
        raise TargetError(f"target={target!r} was given, but the file always explains {always}; leave it out")
    if entry is None:
        return None if record.takes_best or record.is_reported else np.full(batch, record.index, np.int64)
    if target is None and (record.takes_seed or record.takes_entry or record.classes not in (None, 1)):
        raise TargetError("this file needs target=..., or compile the model with --target argmax")
    if record.takes_seed:
        try:
            return _fit(entry, target, {"batch": batch})
        except InputSpecError as error:
            raise TargetError(f"the target is a {record.mode}: {error}") from error
    if record.takes_entry:
        return _check_entries(entry, target, batch)
    return _check_classes(record, 0 if target is None else target, batch)


def _check_entries(entry: InputRecord, target: object, batch: int) -> Array:
    """One entry for each row, or the same for all, as indices; whether it is there, only the output can tell."""
    indices = np.asarray(target)
    shared = indices.ndim == len(entry.shape) - 1
    try:
        if indices.dtype.kind not in "iu":
            raise InputSpecError(f"it is {indices.dtype}")
        given = np.ascontiguousarray(np.broadcast_to(indices, (batch, *indices.shape)) if shared else indices, np.int64)
        return _fit(entry, given, {"batch": batch})
    except InputSpecError as error:
        raise TargetError(f"the target has an index for every axis of the output behind the batch: {error}") from error


def require_entries(record: TargetRecord, target: Array | None, output: Array) -> None:
    """Refuse entries that the output does not have.

    Raises:
        TargetError: an index is beyond its axis.
    """
    if record.takes_entry and target is not None and bool(((target < 0) | (target >= output.shape[1:])).any()):
        raise TargetError(f"target {target.tolist()}: the output's axes have the sizes {list(output.shape[1:])}")


def _check_classes(record: TargetRecord, target: object, batch: int) -> Array:
    """One class for each row; class 0 is all that an output of one number a row has."""
    try:
        classes = np.asarray(target)
    except ValueError as error:
        raise TargetError(f"target={target!r} is not one class, or one for each row: {error}") from error
    several = record.questions is not None
    fits = classes.shape[:1] == (batch,) if classes.ndim == 1 + several else classes.ndim <= several
    whole = classes.dtype.kind in "iu" or all(type(value) is int for value in classes.flat)  # or beyond 64 bits
    if not whole or not fits or 0 in classes.shape:
        wanted = "several, the same for all rows or (rows, several)" if several else "one for each"
        raise TargetError(
            f"target has dtype {classes.dtype} and shape {classes.shape}; give one integer, or {wanted} "
            f"of the {batch} rows"
        )
    limit = record.classes or 1
    for value in classes.flat:
        if not 0 <= value < limit:
            known = (
                f"classes run from 0 to {limit - 1}" if record.classes else "the output has no classes, leave it out"
            )
            raise TargetError(f"target {value} does not exist: {known}")
    shape = np.broadcast_shapes(classes.shape, (batch, 1)) if several else (batch,)
    return np.full(shape, classes, np.int64)


def check_masks(
    records: Sequence[MaskRecord], given: Mapping[str, Array], batch: int, questions: int
) -> dict[str, Array]:
    """Masks as the graph takes them; ones, which mask nothing, where none was given."""
    symbols = {"batch": batch, MANY: questions}
    _require_known("masks of", [record.layer for record in records], given)
    masks = dict[str, Array]()
    for record in records:
        entry = record.input
        sizes = [size if isinstance(size, int) else symbols[size] for size in entry.shape]
        masks[entry.name] = _fit(entry, given.get(record.layer, np.ones(sizes, entry.dtype)), dict(symbols))
    return masks


def _require_known(what: str, names: Sequence[str], given: Mapping[str, Array]) -> None:
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputSpecError(f"{what} {', '.join(unknown)} was given, but the file takes {', '.join(names) or 'none'}")


def check_noise(
    records: Sequence[InputRecord], given: Mapping[str, Array], seed: object, batch: int
) -> dict[str, Array]:
    """Noise as the graph takes it, drawn where it was not given."""
    if type(seed) is not int or seed < 0:
        raise InputSpecError(f"seed={seed!r}: want a whole number, 0 or more")
    _require_known("noise", [record.name for record in records], given)
    generator = np.random.default_rng(seed)
    noise = dict[str, Array]()
    for record in records:
        sizes = [size if isinstance(size, int) else batch for size in record.shape]
        drawn = generator.standard_normal(sizes, np.float64 if record.dtype == "float64" else np.float32)
        array = given.get(record.name, drawn.astype(record.dtype, copy=False))
        noise[record.name] = _fit(record, array, {"batch": batch})
    return noise


def check_reference(entry: InputRecord | None, reference: Array | None, batch: int) -> dict[str, Array]:
    """The reference by its name, if the graph takes one."""
    if (entry is None) != (reference is None):
        raise InputSpecError(
            "reference=... was given, but the file takes none: its reference is fixed"
            if entry is None
            else f"this file needs reference=..., {entry.dtype} {list(entry.shape)}: what differences are taken from"
        )
    return {} if entry is None else {entry.name: _fit(entry, reference, {"batch": batch})}


def _fit(record: InputRecord, array: object, sizes: dict[str, int]) -> Array:
    """The array as the graph takes it; `sizes` learns the size of each symbol."""
    wanted = f"input {record.name} wants {record.dtype} {list(record.shape)}"
    if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):  # whose mask would be lost
        raise InputSpecError(f"{wanted}, but a {type(array).__name__} was given; make it a numpy array")
    found: Array = array
    if found.ndim != len(record.shape):
        raise InputSpecError(f"{wanted}, but the shape {found.shape} was given")
    if 0 in found.shape:
        raise InputSpecError(f"{wanted}, but an empty array of shape {found.shape} was given")
    for axis, (expected, size) in enumerate(zip(record.shape, found.shape, strict=True)):
        bound = expected if isinstance(expected, int) else sizes.setdefault(expected, size)
        if bound != size:
            raise InputSpecError(f"{wanted}, but the shape {found.shape} was given; axis {axis} is not {bound}")
    dtype = np.dtype(record.dtype)
    same_kind = found.dtype.kind == dtype.kind or {found.dtype.kind, dtype.kind} == {"i", "u"}
    if not (same_kind and np.can_cast(found.dtype, dtype, casting="safe")):
        raise InputSpecError(f"{wanted}, but {found.dtype} was given; convert it with .astype('{dtype}')")
    return np.asarray(found, dtype=dtype, order="C")
