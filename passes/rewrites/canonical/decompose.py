"""Composite or differently spelt operators -> the operators of `operators.table`."""

from __future__ import annotations

import math
from operator import getitem
from typing import Any, ClassVar, final

import torch
from torch.fx import GraphModule, Node

from passes.graphs.emitter import Emitter, Value, aten
from passes.graphs.graph import Rewrite, erase_unused, is_constant, rewrite_calls
from passes.graphs.nodes import argument, arguments
from passes.operators.affine import Geometry
from passes.operators.pooling import MaxWindow
from passes.operators.table import OPERATORS
from passes.rewrites.canonical.composites import SPLIT, WHOLE
from passes.rewrites.decompositions.assignments import ASSIGNMENTS
from passes.rewrites.decompositions.attention import ATTENTION
from passes.rewrites.decompositions.grid_sampling import GRID_SAMPLING
from passes.rewrites.decompositions.indexing import INDEXING
from passes.rewrites.decompositions.normalisation import NORMALISATIONS, variance_and_mean
from passes.rewrites.decompositions.products import EXTREMES, PRODUCTS, scanned
from passes.rewrites.decompositions.selection import SELECTIONS, selected
from passes.rewrites.decompositions.spellings import SPELLINGS
from passes.rewrites.decompositions.unpooling import UNPOOLING, places_of_maxima, uneven_maxima


@final
class Decompose:
    """celu, rrelu, pool1d, split, conv "same", norms, attention, recurrent layers, ... -> operators that rules know.

    Guarantees: equal numbers up to rounding; the operators in `_REWRITES` are gone where a rewrite exists.
    """

    name: ClassVar[str] = "decompose"

    def apply(self, module: GraphModule, /) -> int:
        return rewrite_calls(module, _REWRITES) + erase_unused(module)


def _celu(node: Node, emit: Emitter) -> Value:
    alpha = argument(node, "alpha")
    return emit.call(aten.elu.default, arguments(node)[0], alpha, 1, 1 / alpha)


def _rrelu(node: Node, emit: Emitter) -> Value:
    return emit.call(
        aten.leaky_relu.default, arguments(node)[0], (argument(node, "lower") + argument(node, "upper")) / 2
    )


def _convolution_mode(node: Node, emit: Emitter) -> Value:
    x, weight, bias = (argument(node, name) for name in ("input", "weight", "bias"))
    stride, mode, dilation, groups = (argument(node, name) for name in ("stride", "padding", "dilation", "groups"))
    kernel = weight.meta["val"].shape[2:]
    total = [d * (k - 1) if mode == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
    value = emit.value(x)
    uneven = [amount % 2 for amount in reversed(total)]
    value = value.pad([part for odd in uneven for part in (0, odd)])
    padding = [amount // 2 for amount in total]
    zeros = [0] * len(total)
    geometry = Geometry(stride, padding, dilation, transposed=False, output_padding=zeros, groups=groups)
    return emit.call(aten.convolution.default, value, weight, bias, *geometry)


def _max_pool1d(node: Node, emit: Emitter) -> Value:
    x = emit.value(arguments(node)[0])
    along = MaxWindow.of(node)
    window = MaxWindow(
        [1, *along.kernel_size], [1, *along.stride], [0, *along.padding], [1, *along.dilation], along.ceil_mode
    )
    pooled = emit.call(aten.max_pool2d.default, emit.call(aten.unsqueeze.default, x, 2), *window)
    return emit.call(aten.squeeze.dims, pooled, [2])


def _adaptive_max_pool(node: Node, emit: Emitter) -> Value | None:
    pool: Any = arguments(node)[0]
    x, output = emit.value(arguments(pool)[0]), argument(pool, "output_size")
    sizes = x.shape[2:]
    if not _divide(sizes, output):
        return uneven_maxima(x, output)
    kernel = [size // out for size, out in zip(sizes, output, strict=True)]
    target = aten.max_pool2d.default if len(kernel) == 2 else aten.max_pool3d.default
    return emit.call(target, x, kernel, kernel)


def _getitem(node: Node, emit: Emitter) -> Value | None:
    source, index = arguments(node)
    if not isinstance(source, Node) or not isinstance(index, int):
        return None
    if source.target is aten.split_with_sizes.default:
        sizes, dim = argument(source, "split_sizes"), argument(source, "dim")
        start = sum(sizes[:index])
        return emit.value(arguments(source)[0]).slice(dim, start, start + sizes[index])
    if index == 0 and source.target in (aten.adaptive_max_pool2d.default, aten.adaptive_max_pool3d.default):
        return _adaptive_max_pool(node, emit)
    if index == 0 and source.target in _WITHOUT_INDICES:
        return emit.call(_WITHOUT_INDICES[source.target], *source.args, **source.kwargs)
    if index == 1 and source.target in _WITHOUT_INDICES:
        return places_of_maxima(source, emit)
    if source.target is aten.var_mean.correction:
        return variance_and_mean(source, index, emit)
    if index == 0 and source.target in EXTREMES:
        return scanned(source, EXTREMES[source.target], emit)
    return selected(source, index, emit) if source.target in SELECTIONS else None


_WITHOUT_INDICES: dict[Any, Any] = {
    aten.max_pool2d_with_indices.default: aten.max_pool2d.default,
    aten.max_pool3d_with_indices.default: aten.max_pool3d.default,
}


def _adaptive_average(node: Node, emit: Emitter) -> Value | None:
    x, output = emit.value(arguments(node)[0]), argument(node, "output_size")
    sizes = x.shape[2:]
    if set(output) == {1} and x.ndim == len(output) + 2:
        return emit.call(aten.mean.dim, x, list(range(2, x.ndim)), True)
    if x.ndim != len(output) + 2 or not _divide(sizes, output):
        inner = _UNEVEN.get(node.target)
        return None if inner is None else emit.call(inner, x, output)
    kernel = [size // out for size, out in zip(sizes, output, strict=True)]
    target = aten.avg_pool2d.default if len(kernel) == 2 else aten.avg_pool3d.default
    return emit.call(target, x, kernel, kernel)


def _divide(sizes: tuple[Any, ...], output: list[int]) -> bool:
    """Windows of one size tile the input, of a size that is known."""
    return all(isinstance(size, int) and size % out == 0 for size, out in zip(sizes, output, strict=True))


_UNEVEN: dict[Any, Any] = {
    aten.adaptive_avg_pool2d.default: aten._adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default: aten._adaptive_avg_pool3d.default,
}


def _matmul(node: Node, emit: Emitter) -> Value | None:
    """A stored matrix W on the right, x W, or on the left, W x = (xᵀ Wᵀ)ᵀ; a vector is one row or column."""
    a, b = (emit.value(operand) for operand in arguments(node))
    if 1 in (a.ndim, b.ndim):
        return _with_vector(a, b, emit)
    return _with_stored_matrix(a, b, emit)


def _with_vector(a: Value, b: Value, emit: Emitter) -> Value | None:
    """A vector of one number a sample is refused: its product is a sum over the batch."""
    if any(value.ndim == 1 and emit.is_of_batch(value.shape[0]) for value in (a, b)):
        return None
    extra = [-2] * (a.ndim == 1) + [-1] * (b.ndim == 1)
    a = emit.call(aten.unsqueeze.default, a, 0) if a.ndim == 1 else a
    b = emit.call(aten.unsqueeze.default, b, 1) if b.ndim == 1 else b
    product = _with_stored_matrix(a, b, emit) or emit.call(aten.matmul.default, a, b)
    return emit.call(aten.squeeze.dims, product, extra)


def _with_stored_matrix(a: Value, b: Value, emit: Emitter) -> Value | None:
    if _is_stored_matrix(b) and a.ndim >= b.ndim:
        return emit.call(aten.linear.default, a, b.reshape(b.shape[-2:]).permute([1, 0]))
    if not _is_stored_matrix(a) or b.ndim < max(a.ndim, 2):
        return None
    swap = [*range(b.ndim - 2), b.ndim - 1, b.ndim - 2]
    return emit.call(aten.linear.default, b.permute(swap), a.reshape(a.shape[-2:])).permute(swap)


def _is_stored_matrix(value: Value) -> bool:
    """One matrix for all samples, perhaps with leading axes of one element."""
    return is_constant(value.node) and value.ndim > 1 and all(size == 1 for size in value.shape[:-2])


def _addmm(node: Node, emit: Emitter) -> Value | None:
    bias, a, b = arguments(node)
    if node.kwargs or not is_constant(b) or not is_constant(bias) or bias.meta["val"].dim() != 1:
        return None
    return emit.call(aten.linear.default, a, emit.value(b).permute([1, 0]), bias)


def _addmv(node: Node, emit: Emitter) -> Value | None:
    added, a, b = map(emit.value, arguments(node)[:3])
    product = _with_vector(a, b, emit)
    return None if product is None else product * argument(node, "alpha") + added * argument(node, "beta")


def _fresh(value: float) -> Rewrite:
    """A tensor of one number, which takes its dtype but no value from its operand."""
    return lambda node, emit: emit.call(aten.full.default, argument(node, "size"), value, dtype=node.meta["val"].dtype)


def _mean_all(node: Node, emit: Emitter) -> Value:
    x = emit.value(arguments(node)[0])
    return emit.call(aten.mean.dim, x, list(range(x.ndim)))


def _reshape(node: Node, emit: Emitter) -> Value:
    """A view of a value that may not be contiguous once copies are gone; the size of the batch becomes -1."""
    return emit.value(arguments(node)[0]).reshape(node.meta["val"].shape)


def _relu_as_clamp(node: Node, emit: Emitter) -> Value | None:
    low, high = argument(node, "min"), argument(node, "max")
    bounds = (-math.inf if low is None else low, math.inf if high is None else high)
    return emit.call(aten.relu.default, arguments(node)[0]) if bounds == (0, math.inf) else None


_REWRITES: dict[Any, Rewrite] = {
    aten.celu.default: _celu,
    aten.rrelu.default: _rrelu,
    aten._convolution_mode.default: _convolution_mode,
    aten.max_pool1d.default: _max_pool1d,
    aten._adaptive_avg_pool2d.default: _adaptive_average,
    aten._adaptive_avg_pool3d.default: _adaptive_average,
    aten.adaptive_avg_pool2d.default: _adaptive_average,
    aten.adaptive_avg_pool3d.default: _adaptive_average,
    aten.matmul.default: _matmul,
    aten.mm.default: _matmul,
    aten.mv.default: _matmul,
    aten.addmm.default: _addmm,
    aten.addmv.default: _addmv,
    aten.mean.default: _mean_all,
    aten.clamp.default: _relu_as_clamp,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.bmm.default: _matmul,
    aten.new_ones.default: _fresh(1.0),
    aten.new_zeros.default: _fresh(0.0),
    getitem: _getitem,
    **ASSIGNMENTS,
    **ATTENTION,
    **GRID_SAMPLING,
    **INDEXING,
    **NORMALISATIONS,
    **PRODUCTS,
    **SPELLINGS,
    **UNPOOLING,
}


def is_rewritten(target: Any) -> bool:
    """The operator is taken apart after capture, if it is used as it usually is."""
    return target in (*_REWRITES, *SELECTIONS, *EXTREMES, *_WITHOUT_INDICES, aten.split_with_sizes.default)


def composite_decompositions() -> dict[Any, Any]:
    """Torch's own decompositions of the operators that are split at capture, for `run_decompositions`.

    These are all that torch itself defines by others, whatever they are called, but for those that are known here.
    """
    table, known = torch.export.default_decompositions(), {*OPERATORS, *_REWRITES, *WHOLE}
    return {
        operator: split
        for operator, split in table.items()
        if operator in SPLIT or (is_composite(operator) and _makes_tensors(operator) and operator not in known)
    }


def is_composite(operator: Any) -> bool:
    """Torch defines it by other operators."""
    registry: Any = torch
    return registry._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd")


def _makes_tensors(operator: Any) -> bool:
    """And no sizes."""
    return all("Tensor" in str(result.type) for result in operator._schema.returns)
