"""What a pickle rebuilt, looked at once, as a whole tree, before anything of it is called."""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any

import torch
from torch import nn

from relcompile.frontend.reading.archive import broken

MOST_OBJECTS, DEEPEST, LONGEST_NAME = 1_000_000, 200, 1000
_LEAVES = (bool, int, float, str, bytes, type(None), torch.Tensor, nn.Parameter, torch.Size, torch.device, torch.dtype)
_PLACES = "_modules", "_parameters", "_buffers"
_TENSORS: dict[str, type] = {"_parameters": nn.Parameter, "_buffers": torch.Tensor}


def check_tree(root: Any, module_state: Callable[[Any], tuple[type, Any] | None], inert: tuple[type, ...]) -> None:
    """Every object is of an exact, plain type, at most so deep, and no part of itself; every module is one.

    Args:
        root: what was read.
        module_state: the class and state of what stands for a module; None for anything else.
        inert: further types that have nothing inside.

    Raises:
        UnpicklingError: something is not like that; the message says what.
    """
    done, open_ = set[int](), set[int]()
    stack: list[tuple[Any, Iterator[Any]]] = [(None, iter([root]))]
    while stack:
        value = next(stack[-1][1], stack)
        if value is stack:
            finished, _ = stack.pop()
            open_.discard(id(finished))
            done.add(id(finished))
            continue
        if id(value) in open_:
            raise broken(f"a {type(value).__name__} that holds itself")
        if id(value) in done or type(value) in _LEAVES or isinstance(value, (Enum, *inert)):
            continue
        if len(done) > MOST_OBJECTS or len(stack) > DEEPEST:
            raise broken(f"more than {MOST_OBJECTS} objects, or more than {DEEPEST} in each other")
        open_.add(id(value))
        stack.append((value, _inside(value, module_state(value), module_state)))


def _inside(value: Any, module: tuple[type, Any] | None, module_state: Callable[[Any], Any]) -> Iterator[Any]:
    if module is not None:
        _check_module(*module, module_state)
        return iter(module[1].values())
    if type(value) in (dict, OrderedDict):
        return iter(value.values())
    if type(value) in (list, tuple, set):
        return iter(value)
    raise broken(f"a {type(value).__name__}, which is not read")


def _check_module(kind: type, state: Any, module_state: Callable[[Any], Any]) -> None:
    """Its attributes are data, and hide nothing that its class can do."""
    if type(state) is not dict or any(type(state.get(place)) not in (dict, OrderedDict) for place in _PLACES):
        raise broken(f"a {kind.__name__} without children, parameters or buffers, or not in plain dictionaries")
    hidden = [name for name in state if type(name) is not str or name.startswith("__") or _is_method(kind, name)]
    if hidden:
        raise broken(f"a {kind.__name__} with an attribute {hidden[0]!r} in place of a method")
    hooks = [name for name, value in state.items() if "_hooks" in name and value not in ({}, False, None)]
    if hooks or type(state.get("training")) is not bool:
        raise broken(f"a {kind.__name__} with hooks, or neither in training nor in use: {', '.join(hooks)}")
    if issubclass(kind, nn.RNNBase) and not _has_layers(state):
        raise broken(f"a {kind.__name__} with more layers than parameters")
    _check_names(kind, {name: state[name] for name in _PLACES})
    for place, wanted in _TENSORS.items():
        if any(value is not None and type(value) is not wanted for value in state[place].values()):
            raise broken(f"a {kind.__name__} with {place} that are none")
    if any(value is not None and module_state(value) is None for value in state["_modules"].values()):
        raise broken(f"a {kind.__name__} with children that are no modules")


def _has_layers(state: Mapping[str, Any]) -> bool:
    """The state of a recurrent layer, which makes a list of its layers as soon as it has it."""
    return type(state.get("num_layers")) is int and 0 < state["num_layers"] <= len(state["_parameters"])


def _check_names(kind: type, places: Mapping[str, Mapping[Any, Any]]) -> None:
    names = [name for place in places.values() for name in place]
    unfit = [name for name in names if type(name) is not str or len(name) > LONGEST_NAME or _is_method(kind, name)]
    if unfit:
        raise broken(f"a {kind.__name__} with a part that is called {str(unfit[0])[:50]!r}")


def _is_method(kind: type, name: str) -> bool:
    found = inspect.getattr_static(kind, name, None)
    return callable(found) or hasattr(type(found), "__get__")
