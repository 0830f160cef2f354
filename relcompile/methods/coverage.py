"""Torch's own lists of pointwise, reduction and view operators, and what becomes of each: asked of the objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import torch
from torch.utils import _pytree as pytree

from passes.graphs.graph import is_constant_for_autograd
from passes.operators.table import OPERATORS
from passes.rewrites.canonical.decompose import composite_decompositions, is_composite, is_rewritten
from passes.rewrites.canonical.remove_noops import is_removed
from passes.rewrites.canonical.separate_complex import is_separated

Fate: TypeAlias = Literal["passed", "split", "no gradient", "refused"]
FATES: Final[Mapping[Fate, str]] = {
    "passed": "relevance passes, by the rule of its kind",
    "split": "taken apart into operators that relevance passes, or left out as it changes nothing",
    "no gradient": "makes integers, truth values, or what autograd takes for a constant: on no way of relevance",
    "refused": "refused, by name and source line; a model can do without",
}


def coverage() -> Mapping[Fate, Sequence[str]]:
    """Names of the operators by their fate; one with overloads of several fates has the best of them."""
    split, best = composite_decompositions(), dict[str, Fate]()
    for operator in _listed():
        name, fate = operator._schema.name.removeprefix("aten::"), _fate(operator, split)
        best[name] = min(fate, best.get(name, "refused"), key=list(FATES).index)
    by_fate = defaultdict[Fate, list[str]](list)
    for name, fate in sorted(best.items()):
        by_fate[fate].append(name)
    return by_fate


def _listed() -> list[Any]:
    """Every public overload that torch tags as pointwise or as a reduction, or whose value is a view."""
    registry: Any = torch
    known: list[str] = registry._C._dispatch_get_all_op_names()
    names = [name.partition("::")[2] for name in known if name.startswith("aten::")]
    parts = sorted(name.partition(".")[::2] for name in names if not name.startswith("_") and "_backward" not in name)
    overloads = [getattr(getattr(torch.ops.aten, name), overload or "default") for name, overload in parts]
    return [operator for operator in overloads if _is_listed(operator)]


def _is_listed(operator: Any) -> bool:
    aliases = [result.alias_info for result in operator._schema.returns]
    if operator._schema.is_mutable or not aliases or "out" in operator._overloadname:
        return False
    is_view = all(alias is not None and not alias.is_write for alias in aliases)
    return is_view or not {torch.Tag.pointwise, torch.Tag.reduction}.isdisjoint(operator.tags)


def _fate(operator: Any, split: Mapping[Any, Any]) -> Fate:
    row = OPERATORS.get(operator)
    if row is not None and row.views:
        return "passed"
    if is_constant_for_autograd(operator) or _makes_no_floats(operator):
        return "no gradient"
    ways = (
        operator in split,
        is_composite(operator),
        is_rewritten(operator),
        is_separated(operator),
        is_removed(operator),
    )
    return "split" if any(ways) else "refused"


def _makes_no_floats(operator: Any) -> bool:
    """Of floats it makes something else, or it takes integers only; where that cannot be tried, it does."""
    results = [_tried(operator, dtype) for dtype in (torch.float32, torch.int64)]
    known = next((result for result in results if result is not None), None)
    tensors = [leaf for leaf in pytree.tree_leaves(known) if isinstance(leaf, torch.Tensor)]
    return bool(tensors) and not any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors)


def _tried(operator: Any, dtype: torch.dtype) -> Any:
    """The result on small tensors, or None."""
    samples: dict[str, Any] = {
        "Tensor": torch.ones(2, 2, dtype=dtype),
        "number": 1,
        "float": 1.0,
        "int": 0,
        "List[int]": [0],
    }
    try:
        required = [a for a in operator._schema.arguments if not a.has_default_value()]
        return operator(*(samples[str(a.type)] for a in required if not a.kwarg_only))
    except (KeyError, RuntimeError, NotImplementedError, TypeError, IndexError, ValueError):
        return None
