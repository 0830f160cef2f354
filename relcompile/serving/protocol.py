"""The Open Inference Protocol, version 2: requests and answers as bytes, with the extension for binary tensors.

Source: https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol, and the page
binary-tensor-data-extension below it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar, cast

import numpy as np

from relcompile.errors import ExplainerFileError, InputSpecError, RelcompileError
from relcompile.files.records import InputRecord
from relcompile.files.typed_json import parse_json
from relcompile.runtime.conditional import Condition, Scores
from relcompile.runtime.feeds import Array

HEADER_LENGTH: Final = "Inference-Header-Content-Length"
EXPLAIN_ABOVE, EXPLAIN_CLASSES, EXPLAIN_SCORES = "explain_above", "explain_classes", "explain_scores"
_CONDITION: Final = (EXPLAIN_ABOVE, EXPLAIN_CLASSES, EXPLAIN_SCORES)
NAMES: Final = {
    "bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    **{f"{u}int{width}": f"{u.upper()}INT{width}" for u in ("", "u") for width in (8, 16, 32, 64)},
}  # fmt: skip
"""What the protocol calls numpy's data types."""
_DTYPES: Final = {name: np.dtype(dtype).newbyteorder("<") for dtype, name in NAMES.items()}
_MOST_TENSORS: Final = 1000
_MOST_AXES: Final = 32

_Value = TypeVar("_Value")


class _Kind(NamedTuple):
    """What an array of some kind takes: kinds of arrays of JSON values, and what these are."""

    of_json: str
    words: str


_WHOLE: Final = _Kind("iu", "whole numbers")
_KINDS: Final = {"b": _Kind("b", "true and false"), "i": _WHOLE, "u": _WHOLE, "f": _Kind("iuf", "numbers")}


class ProtocolError(RelcompileError):
    """A request is not one of the protocol."""


@dataclass(frozen=True)
class Wanted:
    """One output that a request asks for, as bytes behind the JSON text or as numbers in it."""

    name: str
    binary: bool


@dataclass(frozen=True)
class Request:
    """A request to explain.

    Attributes:
        id: what the answer repeats, "" if nothing.
        inputs: arrays by name.
        outputs: what is asked for; None: everything.
        binary: how outputs are sent where the request does not list them.
        condition: which rows are explained; None: all.
    """

    id: str
    inputs: dict[str, Array]
    outputs: tuple[Wanted, ...] | None
    binary: bool
    condition: Condition | None = None

    def wanted(self, names: Sequence[str]) -> tuple[Wanted, ...]:
        """The outputs to send, of those with these names.

        Raises:
            ProtocolError: one is asked for that does not exist.
        """
        if self.outputs is None:
            return tuple(Wanted(name, self.binary) for name in names)
        unknown = [output.name for output in self.outputs if output.name not in names]
        if unknown:
            raise ProtocolError(f"there is no output {', '.join(unknown)}; there are {', '.join(names)}")
        return self.outputs


def parts(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """The JSON text of a request, the first `header_length` bytes of its body (None: all), and the bytes behind it.

    Raises:
        ProtocolError: the body has no such length.
    """
    if header_length is None:
        return body, b""
    if not (re.fullmatch(r"[0-9]{1,18}", header_length) and int(header_length) <= len(body)):
        raise ProtocolError(f"{HEADER_LENGTH} is {header_length[:40]!r}, but the body has {len(body)} bytes")
    return body[: int(header_length)], body[int(header_length) :]


def read_request(text: bytes, rest: bytes) -> Request:
    """The request in the two `parts` of a body.

    Raises:
        ProtocolError: it is none; the message names the field.
    """
    try:
        record = _record(parse_json(text.decode(), "the request"), "the request")
    except UnicodeDecodeError as error:
        raise ProtocolError(
            f"the request does not begin with JSON in UTF-8 ({error}); tensors as bytes follow the JSON text that "
            f"describes them, and the header {HEADER_LENGTH} says how long that is"
        ) from error
    except ExplainerFileError as error:
        raise ProtocolError(str(error)) from error
    parameters = _parameters(record)
    binary = _field(parameters, "binary_data_output", bool, "parameters", default=False)
    inputs, start = dict[str, Array](), 0
    for entry in _records(record, "inputs"):
        name = _field(entry, "name", str, "inputs")
        if name in inputs:
            raise ProtocolError(f"input {name} was given twice")
        inputs[name], start = _tensor(entry, rest, start, f"input {name}")
    if start != len(rest):
        raise ProtocolError(f"{len(rest)} bytes follow the JSON text, but its inputs have {start}")
    outputs = tuple(_wanted(entry, binary) for entry in _records(record, "outputs")) if "outputs" in record else None
    name = _field(record, "id", str, "the request", default="")
    return Request(name, inputs, outputs or None, binary, _condition(parameters))


def write_answer(
    model: str, request: Request, wanted: Sequence[Wanted], found: Mapping[str, Array]
) -> tuple[bytes, int | None]:
    """The body that answers a request, and the length of its JSON text if bytes follow that.

    Raises:
        ProtocolError: a number that JSON lacks (NaN, infinity, float16) is asked for as JSON.
    """
    entries, blobs = list[dict[str, Any]](), list[bytes]()
    for output in wanted:
        array = found[output.name]
        entry: dict[str, Any] = {"name": output.name, "shape": array.shape, "datatype": NAMES[array.dtype.name]}
        if output.binary:
            blobs.append(array.astype(_DTYPES[entry["datatype"]], copy=False).tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = _listed(output.name, array)
        entries.append(entry)
    answer = {"model_name": model, "model_version": "1", **({"id": request.id} if request.id else {})}
    text = json.dumps({**answer, "outputs": entries}, allow_nan=False, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text) if blobs else None


def model_metadata(name: str, inputs: Sequence[InputRecord], outputs: Sequence[InputRecord]) -> dict[str, Any]:
    """What the protocol tells of a model; sizes that the caller chooses are -1."""

    def tensors(records: Sequence[InputRecord]) -> list[dict[str, Any]]:
        return [
            {"name": r.name, "datatype": NAMES[r.dtype], "shape": [s if isinstance(s, int) else -1 for s in r.shape]}
            for r in records
        ]

    facts = {"name": name, "versions": ["1"], "platform": "onnxruntime_onnx"}
    return {**facts, "inputs": tensors(inputs), "outputs": tensors(outputs)}


def _condition(parameters: Mapping[str, object]) -> Condition | None:
    """Of the parameters explain_above (a number), explain_classes ("1,3"), explain_scores; None if none is given."""
    unknown = [name for name in parameters if name.startswith("explain") and name not in _CONDITION]
    if unknown:  # others are for other servers: priorities, timeouts
        raise ProtocolError(f"parameters: there is no {unknown[0][:40]!r}; there are {', '.join(_CONDITION)}")
    if not parameters.keys() & set(_CONDITION):
        return None
    above = parameters.get(EXPLAIN_ABOVE, 0.0)
    listed = _field(parameters, EXPLAIN_CLASSES, str, "parameters", default="")
    scores = _field(parameters, EXPLAIN_SCORES, str, "parameters", default="softmax")
    try:
        classes = tuple(int(each) for each in listed.split(",")) if listed else ()
        return Condition(cast("float", above), classes, cast("Scores", scores))
    except ValueError as error:
        raise ProtocolError(f"parameters: {EXPLAIN_CLASSES} is {listed[:40]!r}; want classes, as in '1,3'") from error
    except InputSpecError as error:
        raise ProtocolError(f"parameters: {error}") from error


def _tensor(entry: Mapping[str, object], rest: bytes, start: int, where: str) -> tuple[Array, int]:
    """The array of one input, and where the next begins in the bytes behind the JSON text."""
    name, shape = _field(entry, "datatype", str, where), _shape(entry, where)
    if name not in _DTYPES:
        raise ProtocolError(f"{where}: datatype {name[:40]!r} is none of {', '.join(_DTYPES)}")
    dtype, parameters = _DTYPES[name], _parameters(entry)
    _require_known(parameters, ("binary_data_size",), where)
    if not parameters:
        return _numbers(entry, dtype, shape, where), start
    size, promised = math.prod(shape) * dtype.itemsize, _field(parameters, "binary_data_size", int, where)
    if "data" in entry or promised != size or start + size > len(rest):
        raise ProtocolError(
            f"{where}: {name} {list(shape)} has {size} bytes, but binary_data_size is {promised} and "
            f"{len(rest) - start} are left" + " (and data is given, too)" * ("data" in entry)
        )
    try:
        array = np.frombuffer(rest, dtype, math.prod(shape), start).reshape(shape)
    except ValueError as error:  # sizes beside a 0 can be larger than numpy counts
        raise ProtocolError(f"{where}: {error}") from error
    if dtype.kind == "b" and array.view(np.uint8).max(initial=0) > 1:
        raise ProtocolError(f"{where}: a BOOL is a byte 0 or 1")
    return array, start + size


def _numbers(entry: Mapping[str, object], dtype: np.dtype[Any], shape: tuple[int, ...], where: str) -> Array:
    """The array of an input that stands in the JSON text, nested or flat."""
    values = _field(entry, "data", list, where)
    if dtype == np.float16:
        raise ProtocolError(f"{where}: FP16 has no form in JSON; send binary data")
    try:
        array = np.asarray(values)
        if array.size and array.dtype.kind not in _KINDS[dtype.kind].of_json:
            raise ValueError(f"data is of {array.dtype}, but {dtype} wants {_KINDS[dtype.kind].words}")
        with np.errstate(over="ignore"):
            cast_array = array.astype(dtype)
        exact = dtype.kind != "f" or bool(np.isfinite(cast_array).all())
        if not (exact and (dtype.kind == "f" or np.array_equal(cast_array, array))):
            way_on = "; NaN and infinity can be sent as binary data" if dtype.kind == "f" else ""
            raise ValueError(f"data has numbers that {dtype} lacks{way_on}")
        return cast_array.reshape(shape)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"{where}: {error}") from error


def _shape(entry: Mapping[str, object], where: str) -> tuple[int, ...]:
    sizes = cast("list[object]", _field(entry, "shape", list, where))
    if len(sizes) > _MOST_AXES or not all(type(size) is int and 0 <= size < 2**31 for size in sizes):
        raise ProtocolError(f"{where}: shape is not a list of at most {_MOST_AXES} sizes")
    return tuple(cast("list[int]", sizes))


def _wanted(entry: Mapping[str, object], binary: bool) -> Wanted:
    name, parameters = _field(entry, "name", str, "outputs"), _parameters(entry)
    _require_known(parameters, ("binary_data",), f"output {name}")
    return Wanted(name, _field(parameters, "binary_data", bool, f"output {name}", default=binary))


def _require_known(parameters: Mapping[str, object], known: Sequence[str], where: str) -> None:
    """What would change the answer is not left out in silence."""
    unknown = [name for name in parameters if name not in known]
    if unknown:
        raise ProtocolError(f"{where}: parameter {unknown[0][:40]!r} is not supported")


def _listed(name: str, array: Array) -> list[Any]:
    if array.dtype == np.float16 or (array.dtype.kind == "f" and not np.isfinite(array).all()):
        raise ProtocolError(
            f"output {name} has numbers that JSON lacks (float16, NaN or infinity); ask for binary_data"
        )
    return array.reshape(-1).tolist()


def _records(record: Mapping[str, object], name: str) -> list[Mapping[str, object]]:
    entries = cast("list[object]", _field(record, name, list, "the request"))
    if len(entries) > _MOST_TENSORS:
        raise ProtocolError(f"{name} has {len(entries)} entries, more than {_MOST_TENSORS}")
    return [_record(entry, f"an entry of {name}") for entry in entries]


def _parameters(record: Mapping[str, object]) -> Mapping[str, object]:
    return _record(record.get("parameters", {}), "parameters")


def _record(value: object, where: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ProtocolError(f"{where} is not a JSON object")
    return cast("dict[str, object]", value)


def _field(record: Mapping[str, object], name: str, kind: type[_Value], where: str, **default: Any) -> _Value:
    """A field of this very type, or the default."""
    if name not in record and "default" in default:
        return default["default"]
    value = record.get(name)
    if type(value) is not kind:
        raise ProtocolError(f"{where}: {name} is missing, or is not of type {kind.__name__}")
    return value
