"""What an ONNX file asks of whoever loads it, read from its bytes before anyone does; needs no onnx.

Explainers that relcompile writes are straight lines of standard operators with their weights inside. Models may ask for
more, but no file reads weights from outside its own folder.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from relcompile.errors import ExplainerFileError, ModelFileError, RelcompileError
from relcompile.files.paths import open_input

LARGEST_EXPLAINER: Final = 2**31  # bytes: more does not fit the format; weights in files of their own do not count
_STANDARD: Final = (b"", b"ai.onnx")
_DEEPEST: Final = 8  # graphs in graphs
_SIZES: Final = {1: 8, 5: 4}  # bytes of the wire types of fixed size

# Field numbers of onnx.proto3.
_MODEL_GRAPH, _MODEL_FUNCTION = 7, 25
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_GRAPHS, _ATTRIBUTE_TENSORS, _ATTRIBUTE_SPARSE = (6, 11), (5, 10), (22, 23)
_SPARSE_TENSORS: Final = (1, 2)  # values, indices
_TENSOR_EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 13, 1, 2

Span = tuple[int, int]
Field = tuple[int, int | Span]


def check_bounds(path: Path) -> None:
    """Refuse an ONNX file that asks for more than an explainer does.

    Raises:
        ExplainerFileError: it is no regular file or not in the format; an operator is not standard or holds graphs
            of its own (If, Loop, Scan), a function is defined, or weights lie outside the folder of the file.
    """
    asked = _first(path, "an explainer", _explainer_asks, ExplainerFileError)
    if asked is not None:
        raise ExplainerFileError(f"{path} is not an explainer that relcompile wrote: {asked}")


def check_weights(path: Path) -> None:
    """Refuse an ONNX file that is none, or reads what lies outside its folder.

    Raises:
        ModelFileError: it is no regular file or not in the format, defines functions, nests graphs too deeply, or
            its weights lie outside the folder of the file.
    """
    asked = _first(path, "a model file", _model_asks, ModelFileError)
    if asked is not None:
        raise ModelFileError(f"{path} is not read: {asked}")


def _first(
    path: Path, what: str, asks: Callable[[mmap.mmap, Path], Iterator[str]], error: type[RelcompileError]
) -> str | None:
    """The first thing that the file asks for and should not."""
    with open_input(path, what, LARGEST_EXPLAINER, error) as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise error(f"{path} is not {what}: it is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                return next(asks(content, path.parent), None)
            except (IndexError, ValueError) as cause:
                raise error(f"cannot load {path}: it is not {what} in the ONNX format, or damaged") from cause


def _explainer_asks(content: mmap.mmap, folder: Path) -> Generator[str]:
    yield from (ask.words for ask in _asked(content, folder))


def _model_asks(content: mmap.mmap, folder: Path) -> Generator[str]:
    yield from (ask.words for ask in _asked(content, folder) if ask.refused_to_models)


@dataclass(frozen=True)
class _Ask:
    """What a file asks for, in words, that an explainer does not; and whether a model may not, either."""

    words: str
    refused_to_models: bool = True


def _asked(content: mmap.mmap, folder: Path) -> Generator[_Ask]:
    for number, model_field in _fields(content, (0, len(content))):
        if number == _MODEL_FUNCTION:
            yield _Ask("it defines functions")
        if number == _MODEL_GRAPH:
            yield from _of_graph(content, _span(model_field), folder, _DEEPEST)


def _of_graph(content: mmap.mmap, graph: Span, folder: Path, depth: int) -> Generator[_Ask]:
    if depth == 0:
        yield _Ask("graphs hold graphs that hold graphs")
        return
    for number, part in _fields(content, graph):
        if number == _GRAPH_NODE:
            yield from _of_node(content, _span(part), folder, depth)
        elif number == _GRAPH_TENSOR:
            yield from _of_tensor(content, _span(part), folder)
        elif number == _GRAPH_SPARSE:
            yield from _of_sparse(content, _span(part), folder)


def _of_node(content: mmap.mmap, node: Span, folder: Path, depth: int) -> Generator[_Ask]:
    parts = list(_fields(content, node))
    operator, domain = (_text(content, parts, number) for number in (_NODE_OPERATOR, _NODE_DOMAIN))
    if domain not in _STANDARD:
        words = f"the operator {domain.decode(errors='replace')}::{operator.decode(errors='replace')} is not standard"
        yield _Ask(words, refused_to_models=False)
    for number, attribute in parts:
        if number != _NODE_ATTRIBUTE:
            continue
        for kind, value in _fields(content, _span(attribute)):
            if kind in _ATTRIBUTE_GRAPHS:
                words = f"the operator {operator.decode(errors='replace')} holds a graph of its own"
                yield _Ask(words, refused_to_models=False)
                yield from _of_graph(content, _span(value), folder, depth - 1)
            elif kind in _ATTRIBUTE_TENSORS:
                yield from _of_tensor(content, _span(value), folder)
            elif kind in _ATTRIBUTE_SPARSE:
                yield from _of_sparse(content, _span(value), folder)


def _of_sparse(content: mmap.mmap, sparse: Span, folder: Path) -> Generator[_Ask]:
    for number, tensor in _fields(content, sparse):
        if number in _SPARSE_TENSORS:
            yield from _of_tensor(content, _span(tensor), folder)


def _of_tensor(content: mmap.mmap, tensor: Span, folder: Path) -> Generator[_Ask]:
    for number, entry in _fields(content, tensor):
        if number != _TENSOR_EXTERNAL:
            continue
        pair = list(_fields(content, _span(entry)))
        location = os.fsdecode(_text(content, pair, _ENTRY_VALUE))
        if _text(content, pair, _ENTRY_KEY) == b"location" and not _is_inside(folder, location):
            yield _Ask(f"its weights lie in {location!r}, outside its folder")


def _is_inside(folder: Path, location: str) -> bool:
    """Also through links."""
    return Path(os.path.realpath(folder / location)).is_relative_to(os.path.realpath(folder))


def _text(content: mmap.mmap, parts: Iterable[Field], wanted: int) -> bytes:
    """As protobuf has it: the last one counts, and none is empty."""
    spans = [_span(part) for number, part in parts if number == wanted]
    return content[slice(*spans[-1])] if spans else b""


def _span(value: int | Span) -> Span:
    if isinstance(value, int):
        raise ValueError("a number in place of a message")
    return value


def _fields(content: mmap.mmap, span: Span) -> Generator[Field]:
    """The fields of a message: their numbers, and their values or where these stand.

    Raises:
        ValueError, IndexError: this is no message of protobuf.
    """
    position, end = span
    while position < end:
        key, position = _varint(content, position)
        if key & 7 == 0:
            value, position = _varint(content, position)
            yield key >> 3, value
            continue
        if key & 7 == 2:
            size, position = _varint(content, position)
        else:
            size = _SIZES.get(key & 7, end)  # a group, or nothing that there is
        if size > end - position:
            raise ValueError("a field that is longer than its message")
        yield key >> 3, (position, position + size)
        position += size


def _varint(content: mmap.mmap, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where the next thing stands."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[position + shift // 7]
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position + shift // 7 + 1
    raise ValueError("a number of more than 64 bits")
