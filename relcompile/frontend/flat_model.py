"""A model as torch is shown it: one module, whose tensors are called `t0`, `t1`, ... and whose layers `m0`, `m1`, ...

torch writes the names of modules and tensors into Python source, which it runs. A name is any string: a layer may be
called `class`, and a file may hold a name that is a program. So torch never sees the model. It captures a `FlatModel`,
which owns the model's tensors under names of its own and calls the model with them; what its names stand for, it keeps.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Interpreter
from torch.fx.traceback import preserve_node_meta

from relcompile.errors import CaptureError
from relcompile.files.text import printable

LayerEntry = tuple[str, str]  # torch's record of a call: path and class of a module
_MOST_PATHS = 100_000  # to modules: every level of parts that are used twice doubles them
_DICTIONARIES = _PARAMETERS, _BUFFERS, _MODULES = "_parameters", "_buffers", "_modules"


class FlatModel(nn.Module):
    """A model as a function of its inputs and of its tensors, under names that are no one else's.

    Attributes:
        tensors: the user's path to each tensor, by the name that torch knows.
        changed: paths to the tensors in whose place the model's forward put others.
    """

    def __init__(self, call: Callable[..., Any], inputs: Iterable[str]) -> None:
        super().__init__()
        self.tensors = dict[str, str]()
        self.changed = set[str]()  # torch puts back lists and dictionaries that a forward changes, but no sets
        self.forward = with_parameters(self.run, inputs)
        self._call = call
        self._layers = dict[str, LayerEntry]()
        self._names = dict[int, str]()  # of tensors, by identity: what several layers share has one name
        self._slots = list[tuple[dict[str, Any], str, str]]()

    def run(self, *inputs: torch.Tensor) -> Any:
        """What the model returns, computed on the tensors that this module has at this moment."""
        stored = [slots[key] for slots, key, _ in self._slots]
        given = [getattr(self, name) for _, _, name in self._slots]
        try:
            self._place(given)
            result = self._call(*inputs)
            present = [slots.get(key) for slots, key, _ in self._slots]
        finally:
            self._place(stored)
        for (_, _, name), before, after in zip(self._slots, given, present, strict=True):
            self.changed.update([self.tensors[name]] if before is not after else [])
        return result

    def layer_entry(self, entry: LayerEntry) -> LayerEntry | None:
        """Path and class as the user knows them, of what torch recorded; None for what is not the user's."""
        path, kind = entry
        if kind == _name(_Shell):
            return self._layers[path]
        return None if kind == _name(FlatModel) else entry

    def add_tensors(self, module: nn.Module, path: str) -> None:
        """The parameters and buffers of one module of the model."""
        for slots in (vars(module)[_PARAMETERS], vars(module)[_BUFFERS]):
            for key, tensor in slots.items():
                if tensor is not None:
                    self._slots.append((slots, key, self._own(tensor, join(path, key))))

    def add_layer(self, module: nn.Module, path: str, *, root: bool) -> Callable[..., Any]:
        """What takes the place of the forward of `module`: it, with torch noting what is computed inside."""
        name = f"m{len(self._layers)}"
        self._layers[name] = (path, _name(type(module)))
        shell = _Shell(_interpreted(module) if root else module.forward)
        self.add_module(name, shell)
        return functools.wraps(module.forward)(lambda *args, **kwargs: shell(*args, **kwargs))

    def _own(self, tensor: torch.Tensor, path: str) -> str:
        if id(tensor) not in self._names:
            name = self._names[id(tensor)] = f"t{len(self._names)}"
            self.tensors[name] = path
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor)
        return self._names[id(tensor)]

    def _place(self, tensors: list[torch.Tensor]) -> None:
        for (slots, key, _), tensor in zip(self._slots, tensors, strict=True):
            slots[key] = tensor


class _Shell(nn.Module):
    """Stands for one module of the model, and has nothing of it but what it calls."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self._call = call

    def run(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    forward = run  # torch takes functions that are defined as `forward` for the user's source


@contextmanager
def flattened(model: nn.Module, call: Callable[..., Any], inputs: Iterable[str]) -> Generator[FlatModel]:
    """`model`, called by `call` with `inputs` (identifiers), as torch may see it; afterwards it is what it was.

    Raises:
        CaptureError: its parts are shared too often to be told apart.
    """
    flat = FlatModel(call, inputs)
    kept = [_Kept(module) for module in model.modules()]
    try:
        for path, module in list(_paths(model)):
            flat.add_tensors(module, path)
            vars(module)["forward"] = flat.add_layer(module, path, root=module is model)
        yield flat
    finally:
        for module in kept:
            module.restore()


class _Kept:
    """A module as it is, and copies in the places that a capture writes to."""

    def __init__(self, module: nn.Module) -> None:
        self._module, self._state = module, dict(vars(module))
        held = (value for key, value in self._state.items() if key not in _DICTIONARIES)
        self._held = [(value, value.copy()) for value in held if isinstance(value, list | dict | set)]
        vars(module).update({key: dict(self._state[key]) for key in _DICTIONARIES})

    def restore(self) -> None:
        vars(self._module).clear()
        vars(self._module).update(self._state)
        for container, content in self._held:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)


def join(path: str, key: str) -> str:
    """A path one level further down, as it may be shown."""
    return f"{path}.{printable(str(key))}" if path else printable(str(key))


def _paths(model: nn.Module) -> Generator[tuple[str, nn.Module]]:
    """Every module by path. One that is reached in several ways gets a twin for each further way, with its tensors."""
    seen, count = set[int](), 0
    waiting: list[tuple[str, nn.Module, frozenset[int]]] = [("", model, frozenset({id(model)}))]
    while waiting:
        path, module, around = waiting.pop()
        count += 1
        if count > _MOST_PATHS:
            raise CaptureError(f"the model has more than {_MOST_PATHS} layers, counted by the ways to reach them")
        yield path, module
        children: dict[str, nn.Module | None] = vars(module)[_MODULES]
        for key, child in reversed(children.items()):
            if child is None or id(child) in around:
                continue
            inner = around | {id(child)}
            if id(child) in seen:
                child = children[key] = _twin(child)
            seen.add(id(child))
            waiting.append((join(path, key), child, inner))


def _twin(module: nn.Module) -> nn.Module:
    twin = object.__new__(type(module))
    vars(twin).update(vars(module))
    vars(twin).update({key: dict(vars(module)[key]) for key in _DICTIONARIES})
    return twin


def with_parameters(run: Callable[..., Any], names: Iterable[str]) -> Callable[..., Any]:
    """`run` with a signature: torch calls the inputs of its graph by it."""
    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]

    def named(*args: torch.Tensor) -> Any:
        return run(*args)

    vars(named)["__signature__"] = inspect.Signature(parameters)
    return named


def _interpreted(model: nn.Module) -> Callable[..., Any]:
    """The forward of a graph runs node by node, so that what the graph says of its nodes is kept."""
    if not isinstance(model, GraphModule):
        return model.forward

    def interpret(*args: Any, **kwargs: Any) -> Any:
        with preserve_node_meta():
            return Interpreter(model).run(*args, *kwargs.values())

    return interpret


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
