"""The pickle of a checkpoint -> numbers, strings, containers and tensors. Nothing else is made or called.

The pickle is read by Python's own reader, of which only the opcodes that `torch.save` writes are left; what it may name
is a table of this module's functions and of what the caller adds. Every tensor lies within bytes that the file holds,
and whose checksum is right. Limits keep a small file from becoming a large one.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from relcompile.frontend.reading.archive import Archive, Legacy, broken

MOST_OPCODES = 2_000_000  # the largest published models need a tenth
_MOST_BITS = 60  # of an integer as a key: longer ones can have the hash of as many others as one likes
_OPCODES = {
    *("PROTO", "MARK", "STOP", "GLOBAL", "REDUCE", "NEWOBJ", "BUILD", "BINPERSID"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS"),
    *("EMPTY_DICT", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
}
_CODES = {ord(op.code) for op in pickletools.opcodes if op.name in _OPCODES}
_Unpickler: Any = vars(pickle)["_Unpickler"]  # Python's own reader in Python, whose every step can be replaced
PLAIN_TYPES = (str, int, float, bool, type(None))
_STORAGES = {
    f"torch.{name}Storage": dtype
    for name, dtype in {
        "Float": torch.float32,
        "Double": torch.float64,
        "Half": torch.float16,
        "BFloat16": torch.bfloat16,
        "Long": torch.int64,
        "Int": torch.int32,
        "Short": torch.int16,
        "Char": torch.int8,
        "Byte": torch.uint8,
        "Bool": torch.bool,
        "ComplexFloat": torch.complex64,
        "ComplexDouble": torch.complex128,
    }.items()
} | {"torch.storage.UntypedStorage": torch.uint8}
_DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def names_in(program: bytes) -> set[str]:
    """Everything that a pickle names.

    Raises:
        UnpicklingError: it has opcodes that `torch.save` does not write, or too many.
    """
    names = set[str]()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
        if count > MOST_OPCODES:
            raise broken(f"more than {MOST_OPCODES} opcodes")
        if opcode.name not in _OPCODES or (opcode.name == "PROTO" and argument != 2):
            raise broken(f"opcode {opcode.name}")
        if opcode.name == "GLOBAL":
            names.add(str(argument).replace(" ", ".", 1))
    return names - KNOWN_NAMES


class Reader(_Unpickler):
    """Runs a pickle that `names_in` has seen.

    Args:
        program: the pickle.
        archive: where its tensors lie.
        known: what it may name besides this module's functions: values that are never called, or classes whose
            `__new__` takes nothing and which have a `take_state`.
    """

    stack: list[Any]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, program: bytes, archive: Archive | Legacy, known: Mapping[str, Any]) -> None:
        super().__init__(io.BytesIO(program))
        self._archive, self._known = archive, known
        self._stored = dict[str, torch.Tensor]()
        self._budget = 1 << 20

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full in _CALLS:
            return _CALLS[full]
        return self._known[full] if full in self._known else _VALUES[full]

    def persistent_load(self, pid: Any) -> _Storage:
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or type(pid[1]) is not torch.dtype:
            raise broken("a storage that is none")
        _, dtype, key, _, count, *view = pid
        if type(key) is not str or type(count) is not int or count < 0 or view not in ([], [None]):
            raise broken("a storage that is none")
        if key not in self._stored:
            data = self._archive.storage(key, dtype, count)
            self._stored[key] = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)
            self._budget += 4 * len(data)
        return _Storage(self._stored[key], dtype, self)

    def spend(self, size: int) -> None:
        """Tensors may share what is stored, but not so often that a small file becomes a large model."""
        self._budget -= size
        if self._budget < 0:
            raise broken("its tensors overlap and are many times as large as what is stored")

    def _reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack[-1]
        if type(function) is not Call or type(arguments) is not tuple:
            raise broken("a call of something that only is there to be named")
        self.stack[-1] = function.make(*arguments)

    def _new(self) -> None:
        arguments, kind = self.stack.pop(), self.stack[-1]
        if arguments != () or not hasattr(kind, "take_state"):
            raise broken("an object that is made with arguments, or of something that is no class")
        self.stack[-1] = kind()

    def _build(self) -> None:
        state, instance = self.stack.pop(), self.stack[-1]
        if type(instance) is OrderedDict:
            metadata = state.get("_metadata") if type(state) is dict else None
            versions: dict[str, Any] = metadata if metadata is not None and _is_metadata(metadata) else {}
            vars(instance)["_metadata"] = {name: dict(entry) for name, entry in versions.items()}
        elif hasattr(type(instance), "take_state"):
            instance.take_state(state)
        else:
            raise broken(f"a {type(instance).__name__} with a state")

    def _set(self, pairs: list[Any]) -> None:
        if type(self.stack[-1]) not in (dict, OrderedDict) or not all(map(_is_key, pairs[::2])):
            raise broken("a dictionary with keys that are neither strings nor numbers of usual size")
        self.stack[-1].update(zip(pairs[::2], pairs[1::2], strict=True))

    def _set_one(self) -> None:
        pair = self.stack[-2:]
        del self.stack[-2:]
        self._set(pair)

    def _extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise broken("items of something that is no list")
        self.stack[-1].extend(items)

    dispatch: ClassVar[dict[int, Callable[[Any], None]]] = {
        **{code: step for code, step in _Unpickler.dispatch.items() if code in _CODES},
        pickle.REDUCE[0]: _reduce,
        pickle.NEWOBJ[0]: _new,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_one,
        pickle.SETITEMS[0]: lambda self: self._set(self.pop_mark()),
        pickle.APPEND[0]: lambda self: self._extend([self.stack.pop()]),
        pickle.APPENDS[0]: lambda self: self._extend(self.pop_mark()),
    }


@dataclass(frozen=True, eq=False)
class Call:
    """The only thing that a pickle can call: a function of this module, under a name that `torch.save` writes."""

    make: Callable[..., Any]


@dataclass(frozen=True, eq=False)
class _Storage:
    """Bytes of the file, to be read as numbers of a dtype."""

    data: torch.Tensor
    dtype: torch.dtype
    reader: Reader

    def tensor(self, dtype: torch.dtype, offset: Any, size: Any, stride: Any) -> torch.Tensor:
        """The numbers at these places.

        Raises:
            UnpicklingError: they lie outside the bytes, or are more numbers than these hold.
        """
        numbers = (offset, *size, *stride)
        if len(size) != len(stride) or len(size) > 32 or any(type(n) is not int or n < 0 for n in numbers):
            raise broken("a tensor with sizes that are none")
        held, count = len(self.data) // dtype.itemsize, math.prod(size)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0
        if count > held or last >= max(held, 1) or (count and not held):
            raise broken("a tensor that is larger than what is stored of it")
        self.reader.spend(count * dtype.itemsize)
        whole = self.data[: held * dtype.itemsize].view(dtype)
        return torch.empty(0, dtype=dtype).set_(whole.untyped_storage(), offset, tuple(size), tuple(stride))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    if type(storage) is not _Storage or type(size) not in (tuple, torch.Size) or type(stride) is not tuple:
        raise broken("a tensor without a storage, size or stride")
    return storage.tensor(storage.dtype, offset, size, stride)


def _tensor_of(
    storage: Any, offset: Any, size: Any, stride: Any, _grad: Any, _hooks: Any, dtype: Any, *_: Any
) -> torch.Tensor:
    if type(storage) is not _Storage or type(size) is not tuple or type(stride) is not tuple:
        raise broken("a tensor without a storage, size or stride")
    if type(dtype) is not torch.dtype:
        raise broken("a tensor without a dtype")
    return storage.tensor(dtype, offset, size, stride)


def _parameter(data: Any, grad: Any, _hooks: Any, *_state: Any) -> nn.Parameter:
    """What Python attributes a parameter had is forgotten."""
    if type(data) is not torch.Tensor:
        raise broken("a parameter that is no tensor")
    return nn.Parameter(data, grad is True and (data.is_floating_point() or data.is_complex()))


def _ordered(*pairs: Any) -> OrderedDict[Any, Any]:
    items = pairs[0] if pairs else []
    if any(type(pair) not in (list, tuple) or len(pair) != 2 or not _is_key(pair[0]) for pair in items):
        raise broken("a dictionary with keys that are neither strings nor numbers of usual size")
    return OrderedDict(items)


def _set_of(items: Any) -> set[Any]:
    if type(items) is not list or not all(map(_is_key, items)):
        raise broken("a set of something else than strings and numbers of usual size")
    return set(items)


def _size(sizes: Any) -> torch.Size:
    if type(sizes) is not tuple or any(type(n) is not int for n in sizes):
        raise broken("a size that is none")
    return torch.Size(sizes)


def _bytes(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise broken("bytes that are none")
    return text.encode("latin1")


def _is_key(value: object) -> bool:
    """May be a key of a dictionary, or in a set."""
    return type(value) in PLAIN_TYPES and not (isinstance(value, int) and value.bit_length() > _MOST_BITS)


def _is_metadata(value: Any) -> bool:
    """The versions of layers that a state dict carries."""
    return type(value) in (dict, OrderedDict) and all(
        type(name) is str and type(entry) is dict and all(type(item) in PLAIN_TYPES for item in entry.values())
        for name, entry in value.items()
    )


_CALLS = {
    "torch._utils._rebuild_tensor": Call(_tensor),
    "torch._utils._rebuild_tensor_v2": Call(_tensor),
    "torch._utils._rebuild_tensor_v3": Call(_tensor_of),
    "torch._utils._rebuild_parameter": Call(_parameter),
    "torch._utils._rebuild_parameter_with_state": Call(_parameter),
    "torch.Size": Call(_size),
    "torch.device": Call(lambda *_: torch.device("cpu")),
    "collections.OrderedDict": Call(_ordered),
    "__builtin__.set": Call(_set_of),
    "_codecs.encode": Call(_bytes),
}
_VALUES: dict[str, torch.dtype] = _STORAGES | _DTYPES
KNOWN_NAMES = frozenset({*_CALLS, *_VALUES})
