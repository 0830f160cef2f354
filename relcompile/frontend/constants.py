"""While a model is captured: what autograd takes as a constant becomes `detach`, and backwards that are lost are noted.

An exported graph knows no grad modes, no `.data`, no custom backwards and no hooks. Autograd's own flags are asked
instead, at every call of a torch function: `no_grad`, `inference_mode` and `set_grad_enabled`, as blocks, nested blocks
or decorators, are one case.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from relcompile.errors import CaptureError

_Tensor: Any = torch.Tensor
_FREEZE = (_Tensor.requires_grad_, _Tensor.requires_grad.__set__)
_HOOKS = (_Tensor.register_hook, _Tensor.register_post_accumulate_grad_hook)


@contextmanager
def as_autograd_sees(model: torch.nn.Module) -> Generator[AsAutogradSees]:
    """Yields the mode in which calls of `model` detach what is made while gradients are off.

    Raises (from calls of the model):
        CaptureError: a value is changed in place while gradients are off. For autograd its derivative stays that of
            before, which no operator has.
    """
    mode = AsAutogradSees(model)
    with ExitStack() as stack:
        for function in _custom_functions(torch.autograd.Function):
            forward = mode.noting(f"{function.__module__}.{function.__qualname__}", function.forward)
            stack.enter_context(mock.patch.object(function, "forward", staticmethod(forward)))
        mode.lost += [f"a backward hook of {name or 'the model'}" for name in _hooked(model)]
        yield mode


def refuse_lost_backwards(lost: Sequence[str]) -> None:
    """Refuse to call a derivative of the forward the gradient of a model that defines another one.

    Raises:
        CaptureError: there are custom functions or hooks; names them.
    """
    if lost:
        raise CaptureError(
            f"the gradient of this model goes through {', '.join(lost)}, whose backward is Python code that no graph "
            "of forward operators has; if the derivative of the forward is meant: forward_derivative=True "
            "(--forward-derivative); rules that take no derivative (z+, epsilon, ...) work as they stand"
        )


class AsAutogradSees(TorchFunctionMode):
    """What `as_autograd_sees` yields.

    Attributes:
        lost: the custom autograd functions and hooks that were called: their backward is not in the graph.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.lost: list[str] = []
        self._model = model
        self._depth = 0  # of custom functions: inside, gradients are off, but what the forward does counts
        self._constants: dict[int, torch.Tensor] = {}  # kept alive, so that no other tensor gets their identity
        self._frozen: dict[int, torch.Tensor] = {}

    def noting(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward` of a custom function, noted when it is called; what it returns as it came is copied."""

        def noted(*args: Any, **kwargs: Any) -> Any:
            self.lost.append(name)
            self._depth += 1
            try:
                result = forward(*args, **kwargs)
                return pytree.tree_map_only(_Tensor, lambda t: t.clone() if any(t is a for a in args) else t, result)
            finally:
                self._depth -= 1

        return noted

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, keywords = self._with_frozen(tuple(args)), self._with_frozen(dict(kwargs or {}))
        if func == _Tensor.data.__get__:
            return self._constant(args[0])
        if func in _HOOKS:
            self.lost.append("a hook of a tensor")
        if func in _FREEZE and args[1:] == (False,):
            self._frozen[id(args[0])] = self._constant(args[0])
        if self._depth or (torch.is_grad_enabled() and not torch.is_inference_mode_enabled()):
            return func(*args, **keywords)
        operands = [t for t in pytree.tree_leaves((args, keywords)) if isinstance(t, torch.Tensor)]
        versions = [_version(tensor) for tensor in operands]
        result = func(*args, **keywords)
        self._refuse_changed([t for t, version in zip(operands, versions, strict=True) if _version(t) != version])
        return pytree.tree_map_only(_Tensor, self._constant, result)

    def _with_frozen(self, arguments: Any) -> Any:
        """Arguments with the constant in place of a tensor whose gradient was switched off."""
        return pytree.tree_map_only(_Tensor, lambda tensor: self._frozen.get(id(tensor), tensor), arguments)

    def _constant(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or id(tensor) in self._constants:
            return tensor
        with torch.inference_mode(False), torch.no_grad():
            tensor = (tensor.clone() if tensor.is_inference() else tensor).detach()
        self._constants[id(tensor)] = tensor
        return tensor

    def _refuse_changed(self, changed: Sequence[torch.Tensor]) -> None:
        own = [*self._constants.values(), *self._model.buffers(), *self._model.parameters()]
        if any(t.is_floating_point() and not any(t is constant for constant in own) for t in changed):
            raise CaptureError(
                "a value is changed in place while gradients are off (torch.no_grad): its derivative would be that of "
                "before the change; write y = f(x) in place of f_(x), inside the block or outside"
            )


def _version(tensor: torch.Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def _custom_functions(function: type[torch.autograd.Function]) -> Iterator[Any]:
    """Subclasses that are not torch's own."""
    for subclass in function.__subclasses__():
        if not subclass.__module__.startswith("torch."):
            yield subclass
        yield from _custom_functions(subclass)


def _hooked(model: torch.nn.Module) -> list[str]:
    """Modules that change or watch their gradients."""
    hooks = ("_backward_hooks", "_backward_pre_hooks")
    return [name for name, part in model.named_modules() if any(getattr(part, kind, None) for kind in hooks)]
