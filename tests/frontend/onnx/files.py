"""Small ONNX files, written node by node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from relcompile.frontend.onnx.original import Original, difference
from relcompile.frontend.onnx.reading import read_onnx

Array = NDArray[Any]
ALL_TO_THE_LAST_DIGITS = 1e-5  # of the largest value: float32, in another order


class Drawn:
    """Numbers that one file of tests draws, whatever others do."""

    def __init__(self) -> None:
        self._random = np.random.default_rng(0)

    def normal(self, *shape: int) -> np.ndarray:
        """Standard normal numbers."""
        return self._random.normal(size=shape).astype(np.float32)

    def whole(self, kind: type[Any], *shape: int) -> np.ndarray:
        """Integers of the whole range."""
        limits = np.iinfo(kind)
        return self._random.integers(limits.min, limits.max, shape).astype(kind)


def i(*values: int) -> np.ndarray:
    """Integers."""
    return np.array(values, np.int64)


def f(*values: float) -> np.ndarray:
    """Numbers."""
    return np.array(values, np.float32)


def written(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Any] | Array],
    constants: Mapping[str, Array] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
) -> Path:
    """A file with float inputs of these shapes (or of the shape and type of arrays), and outputs of any shape."""
    declared = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(like.dtype), ["n", *like.shape[1:]])
        if isinstance(like, np.ndarray)
        else helper.make_tensor_value_info(name, TensorProto.FLOAT, list(like))
        for name, like in inputs.items()
    ]
    found = [onnx.ValueInfoProto(name=name) for name in outputs]
    stored = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", declared, found, stored)
    versions = {"": opset, **{made.domain: 3 if made.domain == "ai.onnx.ml" else 1 for made in nodes if made.domain}}
    domains = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    model = onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=domains, ir_version=10))
    for value in model.graph.output:
        if not value.type.tensor_type.elem_type:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, path)
    return path


def node(operator: str, *inputs: str, out: str | Sequence[str] = "y", name: str = "", **attributes: Any) -> Any:
    """One node; its results are called y, unless said."""
    results = [out] if isinstance(out, str) else list(out)
    return helper.make_node(operator, list(inputs), results, name=name or None, **attributes)


def compared(path: Path, **inputs: np.ndarray) -> float:
    """The largest difference from ONNX Runtime, of the largest value."""
    model = read_onnx(path)
    with torch.no_grad():
        found = model(*map(torch.from_numpy, inputs.values()))
    wanted = Original(model).run(inputs)
    return max(difference(found[name].numpy(), value) for name, value in wanted.items())
