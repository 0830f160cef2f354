"""Unpickles a model without running anything that the file chooses.

`relcompile.frontend.reading.checkpoint` does the reading; this module decides which names it may know:

- **Module classes** of `KNOWN_LIBRARIES` and of the prefixes the user allows. The name has to be that of an
  `nn.Module` subclass defined in exactly that module: no attribute path through a library leads elsewhere.
  The reader gets not the class but a stand-in, whose instances only keep what the file says. What was read is checked
  as a whole (`relcompile.frontend.reading.checked_tree`); then they become instances of the class, as in ordinary
  unpickling, through `__setstate__`. Classes whose instances carry source code (`fx.GraphModule`,
  `ScriptModule`) are left out.
- **Pure functions**, the activations in `PURE_FUNCTIONS`: tensor in, tensor out. Every other function is
  refused, also harmless ones such as `torch.relu`, which a pickle spells as a call of `getattr`.
- **Classes as values**, and `functools.partial` of one, as torchvision's networks store them. What they were is shown,
  but calling one is an error: **no constructor runs**, neither while the file is read nor in a forward.

What is left to trust is the `__setstate__` and `forward` of the allowed libraries, with attributes chosen by the file.
That is why `transformers` is not a known library: it can fetch code from a hub that the model's configuration names.
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional

from relcompile.errors import ModelFileError
from relcompile.frontend.reading.archive import Archive
from relcompile.frontend.reading.checked_tree import check_tree
from relcompile.frontend.reading.checkpoint import PLAIN_TYPES, Call, Reader, names_in
from relcompile.frontend.reading.refusal import refusal, users_packages

KNOWN_LIBRARIES = (
    "torch.nn.modules",
    "torch.nn.parallel.data_parallel",
    "torchvision.models",
    "torchvision.ops",
    "timm.layers",
    "timm.models",
)
PURE_FUNCTIONS: tuple[Callable[..., Any], ...] = (
    functional.relu,
    functional.relu6,
    functional.leaky_relu,
    functional.gelu,
    functional.silu,
    functional.mish,
    functional.elu,
    functional.selu,
    functional.softplus,
    functional.hardtanh,
    functional.hardswish,
    functional.hardsigmoid,
    functional.sigmoid,
    functional.tanh,
    functional.softmax,
    functional.log_softmax,
)
ENUMS = ("timm.layers.format.Format",)
PARTIAL = "functools.partial"
CODE_CARRIERS = (torch.fx.GraphModule, torch.jit.ScriptModule)
_FUNCTION_TYPES = tuple({type(function) for function in PURE_FUNCTIONS})
NEVER_IMPORTED = ("__main__", "setup", "conftest")  # modules that do something when they are imported


class _StandIn:
    """In place of a module class: its instances are inert until `awake`."""

    stands_for: ClassVar[type[nn.Module]]
    made: ClassVar[list[_StandIn]]
    state: Any = None

    def __new__(cls) -> _StandIn:
        instance = super().__new__(cls)
        cls.made.append(instance)
        return instance

    def take_state(self, state: Any) -> None:
        """Keep what the file says."""
        self.state = state

    def awake(self, values: _Values) -> None:
        """Becomes the module it stands for, in place, so that everything that refers to it stays right."""
        state = {name: values.restored(value) for name, value in vars(self).pop("state").items()}
        self.__class__ = self.stands_for  # pyright: ignore[reportAttributeAccessIssue]
        self.__setstate__(state)  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, eq=False)
class _Partial:
    """In place of `functools.partial` of a class: keeps the name of the class, and nothing that was bound."""

    name: str

    def take_state(self, state: Any) -> None:
        """What was bound: numbers and strings, which are not kept."""
        _, arguments, keywords, _ = state
        if any(type(value) not in PLAIN_TYPES for value in (*arguments, *keywords.values())):
            raise pickle.UnpicklingError("functools.partial with arguments that are not plain numbers or strings")


@dataclass(frozen=True)
class Unbuilt:
    """What a file stored as a class, or as a partial call of one: a value that says what it was.

    Attributes:
        name: of the class.
    """

    name: str

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise ModelFileError(
            f"the model calls {self.name}, which its file stores as a value; no file that is read "
            "safely constructs anything. Ways on: `--trust-model-file` if you trust it, or its state dict with `--arch`"
        )


def load_checkpoint(path: Path, allow: Sequence[str]) -> object:
    """What a zip checkpoint of `torch.save` holds, read without running code that the file chooses.

    Args:
        path: the checkpoint.
        allow: prefixes of dotted names, whose module classes are allowed besides the known ones.

    Raises:
        ModelFileError: the file names something that is not allowed, or is damaged.
    """
    try:
        archive = Archive(path)
        program = archive.program()
        names = sorted(names_in(program))
    except Exception as error:
        raise ModelFileError(
            f"{path}: a PyTorch checkpoint that is damaged or not of pickle protocol 2 ({reason(error)}). "
            "Save it again with `torch.save` and its own protocol."
        ) from error
    made: list[_StandIn] = []
    known = _known_values(path, names, allow, made)
    try:
        found: object = Reader(program, archive, known).load()
        check_tree([found, *made], _module_state, (_Partial, *_FUNCTION_TYPES, type))
        return _awake(found, made)
    except Exception as error:
        raise ModelFileError(
            f"{path}: the safe reader stopped ({reason(error)}). Save `model.state_dict()` and use "
            "`--arch package.module:callable`, or, if you trust the file, `--trust-model-file`."
        ) from error


def reason(error: BaseException) -> str:
    """The first line of what went wrong."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


@contextmanager
def working_directory_importable() -> Generator[None]:
    """Code that the user names is found from the working directory, as with `python -m`."""
    here = os.getcwd()
    importlib.invalidate_caches()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):
            sys.path.remove(here)


def _known_values(path: Path, names: Sequence[str], allow: Sequence[str], made: list[_StandIn]) -> dict[str, Any]:
    """Everything that the pickle may name; nothing is imported before every name has passed."""
    functions = {f"{function.__module__}.{function.__name__}": function for function in PURE_FUNCTIONS}
    others = [name for name in names if name not in functions and name != PARTIAL]
    foreign = [name for name in others if not _within(name, (*KNOWN_LIBRARIES, *allow))]
    if foreign:
        what = "that relcompile does not know to be harmless"
        raise ModelFileError(refusal(path, foreign, what, packages=users_packages(foreign)))
    found = {name: _named_class(path, name, allow) for name in others}
    classes = {name: value for name, value in found.items() if value is not None}
    if len(classes) < len(found):
        unfit = [name for name in found if name not in classes]
        raise ModelFileError(refusal(path, unfit, "that are not plain nn.Module classes of an allowed library"))
    values = {name: _member_of(value) if name in ENUMS else _stand_in(value, made) for name, value in classes.items()}
    return {**values, **functions, PARTIAL: Call(_partial)}


def _within(name: str, prefixes: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def _member_of(enum: type[Any]) -> Call:
    """A pickle writes a member as a call of its class with one value; with more, it would make another class."""

    def member(value: Any) -> Any:
        return enum(value)

    return Call(member)


def _stand_in(module_class: Any, made: list[_StandIn]) -> type[_StandIn]:
    return type(module_class.__name__, (_StandIn,), {"stands_for": module_class, "made": made})


def _named_class(path: Path, name: str, allow: Sequence[str]) -> type[Any] | None:
    """The class of exactly this name, no re-export and no attribute of something else; None if unfit."""
    module_name, _, class_name = name.rpartition(".")
    known = _within(name, KNOWN_LIBRARIES)
    try:
        module = importlib.import_module(module_name) if known else _imported(module_name, allow)
    except (Exception, SystemExit) as error:
        raise ModelFileError(
            f"{path}: needs {name!r}, but {module_name!r} cannot be imported here ({reason(error)}). "
            "Install the package in the version that saved the file."
        ) from error
    if module is None:
        raise ModelFileError(
            f"{path}: needs {name!r}, but importing what --allow names does not import {module_name!r}; if you trust "
            f"that module to be imported: --allow {module_name}"
        )
    found = vars(module).get(class_name)
    return found if isinstance(found, type) and _is_acceptable(found, name) else None


def _imported(module_name: str, allow: Sequence[str]) -> ModuleType | None:
    """The module, if it is one of those that importing the user's own words imports: the file chooses no import."""
    if not set(module_name.split(".")).isdisjoint(NEVER_IMPORTED):
        return None
    for prefix in filter(None, allow):
        with working_directory_importable():
            if _within(module_name, [prefix]):
                importlib.import_module(prefix)
            elif _within(prefix, [module_name]):  # the user named a class
                importlib.import_module(prefix.rpartition(".")[0])
    return sys.modules.get(module_name)


def _is_acceptable(found: type[Any], name: str) -> bool:
    own_name = f"{found.__module__}.{found.__qualname__}" == name
    plain = issubclass(found, nn.Module) and not issubclass(found, CODE_CARRIERS)
    return own_name and (plain or name in ENUMS)


def _module_state(value: object) -> tuple[type, Any] | None:
    return (value.stands_for, value.state) if isinstance(value, _StandIn) else None


def _partial(function: Any) -> _Partial:
    if not (isinstance(function, type) and issubclass(function, _StandIn)):
        raise pickle.UnpicklingError("functools.partial of something that is not a module class")
    return _Partial(function.stands_for.__name__)


def _awake(found: Any, made: list[_StandIn]) -> object:
    """Turns stand-ins into modules, what lies inside a module before the module itself."""
    values = _Values()
    for instance in reversed(made):
        instance.awake(values)
    return values.restored(found)


class _Values:
    """What takes the place of each value that was read: itself, but for classes and partial calls of them.

    Lists and dictionaries are changed in place: what is held twice is looked at once, and stays held twice.
    """

    def __init__(self) -> None:
        self._made = dict[int, tuple[Any, Any]]()  # by identity, with what it was made of: that keeps the identity

    def restored(self, value: Any) -> Any:
        """The value; equal to what it gave for the same one before."""
        if id(value) not in self._made:
            self._made[id(value)] = value, self._restored(value)
        return self._made[id(value)][1]

    def _restored(self, value: Any) -> Any:
        if isinstance(value, type) and issubclass(value, _StandIn):
            return Unbuilt(value.stands_for.__name__)
        if type(value) is _Partial:
            return Unbuilt(value.name)
        if type(value) is tuple:
            return tuple(self.restored(item) for item in cast(tuple[Any, ...], value))
        if type(value) is list:
            cast(list[Any], value)[:] = [self.restored(item) for item in cast(list[Any], value)]
        if isinstance(value, dict):
            cast(dict[Any, Any], value).update({key: self.restored(item) for key, item in value.items()})
        return value
