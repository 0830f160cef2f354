"""AttnLRP of any PyTorch model, as gradient × input: every function of torch that it calls has another gradient.

A `TorchFunctionMode` sees the functions as the model runs, whatever wrote them, and never a graph. The gradients are
those of Achtibat et al. 2024, float64, without a stabiliser:

exact      linear maps, sums, what moves values, softmax (its Taylor expansion, proposition 3.1)
secant     f(x) / x of a function of one value (identity rule)
half       of the product of two values that depend on the input (equation 8, proposition 3.3)
held       a norm's deviation (proposition 3.4), a divisor, and what comes out of a function with f(0) ≠ 0 where it
           multiplies a signal (the gates of Arras et al. 2017): constants

A function that is in none of the lists is an error: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from types import FunctionType
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from tests.oracles.patched_gradients import activation, divided

_ASKS: Final = {"__get__", "dim", "is_floating_point", "requires_grad_", "size"}
_MOVES: Final = {
    "__getitem__", "chunk", "clone", "contiguous", "detach", "expand", "expand_as", "flatten", "float", "gather",
    "index_select", "masked_fill", "movedim", "pad", "permute", "repeat", "repeat_interleave", "reshape", "roll",
    "select", "split", "split_with_sizes", "squeeze", "t", "to", "transpose", "tril", "type_as", "unbind",
    "unflatten", "unfold", "unsqueeze", "view", "where",
}  # fmt: skip
"""One value in other places: what it comes from is known behind them."""
_EXACT: Final = _MOVES | {
    "__setitem__", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "add", "addmm", "avg_pool1d", "avg_pool2d",
    "batch_norm", "cat", "concat", "conv1d", "conv2d", "conv3d", "cumsum", "dropout", "embedding", "fft_fftn",
    "linear", "max_pool2d", "mean", "neg", "rsub", "softmax", "stack", "sub", "sum", "upsample_bilinear2d",
}  # fmt: skip
_SECANT: Final = {"elu", "gelu", "hardswish", "leaky_relu", "mish", "pow", "relu", "silu", "square", "tanh"}
_LIFTED: Final = {"exp", "hardsigmoid", "reciprocal", "rsqrt", "sigmoid", "softplus"}
_PRODUCTS: Final = {"bmm", "einsum", "matmul", "mul"}
_SPELLINGS: Final[Mapping[str, str]] = {
    "__add__": "add", "__radd__": "add", "__iadd__": "add", "__sub__": "sub", "__rsub__": "rsub", "__isub__": "sub",
    "__mul__": "mul", "__rmul__": "mul", "__imul__": "mul", "multiply": "mul", "__matmul__": "matmul",
    "__truediv__": "div", "true_divide": "div", "__pow__": "pow", "__neg__": "neg", "concatenate": "cat",
}  # fmt: skip


class ChangedFunctions(TorchFunctionMode):
    """While it is active, functions of torch have the gradients of AttnLRP, and the same values."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not _active((args, kwargs)) or func.__name__ in _ASKS:
            return func(*args, **kwargs)
        name = func.__name__ if func.__name__.startswith("__") else func.__name__.rstrip("_")
        return self._changed(_SPELLINGS.get(name, name), func, args, kwargs)

    def _changed(self, name: str, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in _EXACT:
            return _as_lifted(func(*args, **kwargs), name in _MOVES and _is_lifted(args[0]))
        if name in _SECANT | _LIFTED:
            return _as_lifted(activation(func, *args, **kwargs), name in _LIFTED)
        if name in _PRODUCTS:
            return _product(func, args, kwargs)
        if name == "div":
            return _quotient(func, *args, **kwargs)
        if name not in _WRITTEN_OUT and not isinstance(func, FunctionType):
            raise NotImplementedError(f"{name} is in no list of this oracle")
        with self:
            return (_WRITTEN_OUT.get(name) or _opened(func))(*args, **kwargs)


def _product(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    factors = [a for a in pytree.tree_leaves(args) if isinstance(a, Tensor) and a.requires_grad]
    if len(factors) == 1:
        return _as_lifted(func(*args, **kwargs), _is_lifted(factors[0]))
    held = [a for a in factors if _is_lifted(a)]
    if len(held) == 1:
        return func(*pytree.tree_map(lambda a: a.detach() if a is held[0] else a, args), **kwargs)
    return divided(func(*args, **kwargs), 2)


def _quotient(func: Any, a: Any, b: Any, **kwargs: Any) -> Any:
    """The divisor is a constant."""
    held = b.detach() if isinstance(b, Tensor) else b
    return _as_lifted(func(a, held, **kwargs), _is_lifted(a) and not _active(b))


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`softmax(q kᵀ scale + mask) v`."""
    if enable_gqa:
        k, v = (x.repeat_interleave(q.shape[-3] // x.shape[-3], -3) for x in (k, v))
    scores = torch.matmul(q, k.transpose(-1, -2)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return torch.matmul(scores.softmax(-1), v)


def _layer_norm(x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    y = _normal(x, list(range(-len(shape), 0)), eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def _group_norm(x: Tensor, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Tensor:
    y = _normal(x.unflatten(1, (groups, -1)).flatten(2), [-1], eps).reshape(x.shape)
    sizes = [-1, *[1] * (x.dim() - 2)]
    y = y if weight is None else y * weight.reshape(sizes)
    return y if bias is None else y + bias.reshape(sizes)


def _normal(x: Tensor, dims: list[int], eps: float) -> Tensor:
    """The mean is part of the linear map; the deviation is a constant."""
    deviation = (x.detach().var(dims, unbiased=False, keepdim=True) + eps).sqrt()
    return (x - x.mean(dims, keepdim=True)) / deviation


_WRITTEN_OUT: Final[Mapping[str, Callable[..., Any]]] = {
    "scaled_dot_product_attention": _attention,
    "layer_norm": _layer_norm,
    "group_norm": _group_norm,
}


def _active(structure: Any) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(structure))


def _is_lifted(value: Any) -> bool:
    """It comes out of a function with f(0) ≠ 0, and was only moved and scaled since."""
    return isinstance(value, Tensor) and getattr(value, "is_lifted", False)


def _as_lifted(result: Any, lifted: bool) -> Any:
    for leaf in pytree.tree_leaves(result) if lifted else ():
        leaf.is_lifted = True
    return result


def _opened(function: FunctionType) -> Callable[..., Any]:
    """A function of torch that is written in Python, without its question whether a mode takes it as a whole."""
    never = dict.fromkeys((k for k in function.__globals__ if k.startswith("has_torch_function")), lambda *_: False)
    opened = FunctionType(
        function.__code__, {**function.__globals__, **never}, None, function.__defaults__, function.__closure__
    )
    opened.__kwdefaults__ = function.__kwdefaults__
    return opened


def explain(
    model: nn.Module, inputs: Mapping[str, Tensor], target: Tensor, embedding: Callable[[nn.Module], nn.Module] | None
) -> Tensor:
    """Relevance of the first input for the score of the target; of indices, of the rows that `embedding` finds.

    Args:
        model: makes scores (N, classes); its parameters do not require a gradient.
        inputs: by name.
        target: the classes, (N,).
        embedding: finds the module that embeds the first input, if that holds indices.
    """
    leaves = list[Tensor]()

    def explained(_module: nn.Module, _args: Any, rows: Tensor) -> Tensor:
        """Rows of every call are explained: encoder and decoder share a table."""
        leaves.append(rows.detach().requires_grad_())
        return leaves[-1]

    first, *others = inputs.items()
    table = None if embedding is None else embedding(model).weight
    if table is None:
        leaves.append(first[1].clone().requires_grad_())
        first = (first[0], leaves[0])
    with ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.weight is table:
                stack.callback(module.register_forward_hook(explained).remove)
        stack.enter_context(_activations_of_transformers())
        stack.enter_context(ChangedFunctions())
        scores = model(**dict([first, *others]))
    (gradient,) = torch.autograd.grad(scores[torch.arange(len(target)), target].sum(), leaves[0])
    relevance = (leaves[0] * gradient).detach()
    return relevance if table is None else relevance.sum(-1)


@contextmanager
def _activations_of_transformers() -> Generator[None]:
    """Those that are written out, such as `0.5 z (1 + tanh(...))`, are functions of one value like others."""
    from transformers import activations

    with ExitStack() as stack:
        for kind in (activations.NewGELUActivation, activations.FastGELUActivation, activations.QuickGELUActivation):
            stack.enter_context(patch.object(kind, "forward", _whole(kind.forward)))
        yield


def _whole(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def called(self: Any, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return activation(lambda z: forward(self, z), x)

    return called
