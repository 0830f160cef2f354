"""Unpickles a model without running anything that the file chooses.

PyTorch's `weights_only` unpickler does the reading; this module decides which names it may know:

- **Module classes** of `KNOWN_LIBRARIES` and of the prefixes the user allows. The name has to be that of an
  `nn.Module` subclass defined in exactly that module: no attribute path through a library leads elsewhere.
  The unpickler gets not the class but a stand-in, whose instances only keep what the file says. After the file
  is read they become instances of the class, as in ordinary unpickling, through `__setstate__`. So **no
  constructor runs**, and nothing of the libraries can be called while the file has the word. Classes whose
  instances carry source code (`fx.GraphModule`, `ScriptModule`) are left out.
- **Pure functions**, the activations in `PURE_FUNCTIONS`: tensor in, tensor out. Every other function is
  refused, also harmless ones such as `torch.relu`, which a pickle spells as a call of `getattr`.
- **`functools.partial`** only of a module class and with plain arguments, as torchvision's vision
  transformers store it. It is rebuilt after reading; nothing can call it before.

What is left to trust is the `forward` of the allowed libraries, with attributes chosen by the file. That is
why `transformers` is not a known library: it can fetch code from a hub that the model's configuration names.
"""

import functools
import importlib
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, ClassVar, cast

import torch
from torch import nn
from torch.nn import functional
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from relcompile.errors import ModelFileError

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
PLAIN_TYPES = (bool, int, float, str, type(None))
SHOWN = 8

SafeGlobal = Callable[..., Any] | tuple[Callable[..., Any], str]


class _StandIn:
    """In place of a module class: its instances are inert until `awake`."""

    stands_for: ClassVar[type[nn.Module]]
    made: ClassVar[list["_StandIn"]]
    state: Any

    def __new__(cls) -> "_StandIn":
        instance = super().__new__(cls)
        cls.made.append(instance)
        return instance

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def awake(self) -> None:
        """Becomes the module it stands for, in place, so that everything that refers to it stays right."""
        state = _restored(vars(self).pop("state"))
        self.__class__ = self.stands_for  # pyright: ignore[reportAttributeAccessIssue]
        self.__setstate__(state)


class _StoredPartial:
    """In place of `functools.partial`: keeps what the file says, calls nothing."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def __setstate__(self, state: tuple[Any, tuple[Any, ...], dict[str, Any], None]) -> None:
        function, arguments, keywords, _ = state
        if not _is_stand_in(function):
            raise pickle.UnpicklingError("functools.partial of something that is not a module class")
        if any(type(value) not in PLAIN_TYPES for value in (*arguments, *keywords.values())):
            raise pickle.UnpicklingError("functools.partial with arguments that are not plain numbers or strings")
        self.function, self.arguments, self.keywords = function, arguments, keywords

    def restored(self) -> Callable[..., Any]:
        return functools.partial(self.function.stands_for, *self.arguments, **self.keywords)


def load_checkpoint(path: Path, allow: Sequence[str]) -> object:
    """What a zip checkpoint of `torch.save` holds, read without running code that the file chooses.

    Args:
        path: the checkpoint.
        allow: prefixes of dotted names, whose module classes are allowed besides the known ones.

    Raises:
        ModelFileError: the file names something that is not allowed, or is damaged.
    """
    try:
        names = sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception as error:
        raise ModelFileError(
            f"{path}: a PyTorch checkpoint that is damaged or not of pickle protocol 2 ({reason(error)}). "
            "Save it again with `torch.save` and its own protocol."
        ) from error
    made: list[_StandIn] = []
    allowed = _allowed_globals(path, names, allow, made)
    try:
        with safe_globals(allowed):
            found: object = torch.load(path, map_location="cpu", weights_only=True)
        _awake(made)
    except Exception as error:
        raise ModelFileError(
            f"{path}: the safe reader stopped ({reason(error)}). Save `model.state_dict()` and use "
            "`--arch package.module:callable`, or, if you trust the file, `--trust-model-file`."
        ) from error
    return found


def reason(error: Exception) -> str:
    """The first line of what went wrong, without the advice of `torch.load`, which does not fit here."""
    inner = error.__context__ if isinstance(error, pickle.UnpicklingError) and error.__context__ else error
    return f"{type(inner).__name__}: {str(inner).partition(chr(10))[0]}"


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


def _allowed_globals(path: Path, names: Sequence[str], allow: Sequence[str], made: list[_StandIn]) -> list[SafeGlobal]:
    """Everything the unpickler may know; nothing is imported before every name has passed."""
    functions = {f"{function.__module__}.{function.__name__}": function for function in PURE_FUNCTIONS}
    others = [name for name in names if name not in functions and name != PARTIAL]
    foreign = [name for name in others if not _within(name, (*KNOWN_LIBRARIES, *allow))]
    if foreign:
        what = "that relcompile does not know to be harmless"
        raise ModelFileError(_refusal(path, foreign, what, packages=_users_packages(foreign)))
    found = {name: _named_class(path, name) for name in others}
    classes = {name: value for name, value in found.items() if value is not None}
    if len(classes) < len(found):
        unfit = [name for name in found if name not in classes]
        raise ModelFileError(_refusal(path, unfit, "that are not plain nn.Module classes of an allowed library"))
    allowed: list[SafeGlobal] = [functions[name] for name in names if name in functions]
    allowed += [(_StoredPartial, PARTIAL)] if PARTIAL in names else []
    allowed += [(value if name in ENUMS else _stand_in(value, made), name) for name, value in classes.items()]
    return allowed


def _within(name: str, prefixes: Sequence[str]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in prefixes)


def _stand_in(module_class: Any, made: list[_StandIn]) -> type[_StandIn]:
    return type(module_class.__name__, (_StandIn,), {"stands_for": module_class, "made": made})


def _named_class(path: Path, name: str) -> type[Any] | None:
    """The class of exactly this name, no re-export and no attribute of something else; None if unfit."""
    module_name, _, class_name = name.rpartition(".")
    place = nullcontext() if _within(name, KNOWN_LIBRARIES) else working_directory_importable()
    try:
        with place:
            module = importlib.import_module(module_name)
    except Exception as error:
        raise ModelFileError(
            f"{path}: needs {name!r}, but {module_name!r} cannot be imported here ({reason(error)}). "
            "Install the package in the version that saved the file."
        ) from error
    found = vars(module).get(class_name)
    return found if isinstance(found, type) and _is_acceptable(found, name) else None


def _is_acceptable(found: type[Any], name: str) -> bool:
    own_name = f"{found.__module__}.{found.__qualname__}" == name
    plain = issubclass(found, nn.Module) and not issubclass(found, CODE_CARRIERS)
    return own_name and (plain or name in ENUMS)


def _refusal(path: Path, names: Sequence[str], what: str, packages: Sequence[str] = ()) -> str:
    """The names, and the ways on. The names come from the file, so they are shown as `repr`."""
    more = f" and {len(names) - SHOWN} more" if names[SHOWN:] else ""
    allow = " ".join(f"--allow {package}" for package in packages[:SHOWN])
    ways = [
        *([f"`{allow}` if these are nn.Module classes you trust"] if allow else []),
        "`--trust-model-file` if you trust the file: it may then run any code",
        "save `model.state_dict()` and use `--arch package.module:callable`: nothing from the file is run",
    ]
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return f"{path}: a pickled model with names {what}: {shown}{more}. Ways on: {'; '.join(ways)}."


def _users_packages(names: Sequence[str]) -> list[str]:
    """For every top-level package that may be the user's, the deepest module that holds all its names."""
    modules: dict[str, list[list[str]]] = {}
    for name in names:
        top, *inner = name.split(".")[:-1]
        if name.replace(".", "_").isidentifier() and top not in (*sys.stdlib_module_names, "__main__"):
            modules.setdefault(top, []).append([top, *inner])
    return [".".join(_shared_start(parts)) for parts in modules.values()]


def _shared_start(parts: Sequence[Sequence[str]]) -> list[str]:
    return [level[0] for level in takewhile(lambda level: len(set(level)) == 1, zip(*parts, strict=False))]


def _is_stand_in(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, _StandIn)


def _awake(made: list[_StandIn]) -> None:
    """Turns stand-ins into modules, what lies inside a module before the module itself."""
    for instance in reversed(made):
        instance.awake()
    for module in cast(list[Any], made):
        if not all(isinstance(child, nn.Module) for child in module.children()):
            raise pickle.UnpicklingError(f"a {type(module).__name__} with children that are no modules")


def _restored(value: Any) -> Any:
    if _is_stand_in(value):
        return value.stands_for
    if isinstance(value, _StoredPartial):
        return value.restored()
    if type(value) in (list, tuple):
        return type(value)(_restored(item) for item in value)
    if type(value) in (dict, OrderedDict):
        return type(value)((key, _restored(item)) for key, item in value.items())
    return value
