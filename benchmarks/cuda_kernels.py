"""Which operators of these explainers have a CUDA kernel in ONNX Runtime, for the data types they have? Needs no GPU.

ONNX Runtime's documentation says for which data types (`benchmarks/parts/cuda_types.py`); the package's library keeps
the type names of its kernels (symbols are stripped). An operator without one runs on the processor, between two copies.
That a kernel is there says nothing of its speed or its numbers.

    pip download onnxruntime-gpu --no-deps -d wheels
    python -m benchmarks.cuda_kernels wheels/onnxruntime_gpu-*.whl model.z+.onnx model.root.onnx
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import onnx
from rich.console import Console
from rich.table import Table

from benchmarks.parts.cuda_types import OPERAND, TYPES

LIBRARY: Final = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_TYPE: Final = re.compile(rb"N11onnxruntime4cuda(\d+)([A-Za-z]\w{1,120})")  # a mangled name onnxruntime::cuda::...
# Operators whose kernels are called differently.
_CALLED: Final = {
    "AveragePool": "Pool", "GlobalAveragePool": "Pool", "MaxPool": "Pool", "GlobalMaxPool": "Pool",
    "BatchNormalization": "BatchNorm", "InstanceNormalization": "InstanceNorm", "LayerNormalization": "LayerNorm",
    "Identity": "IdentityOp", "OneHot": "OneHotOp", "Split": "Split_18", "LpNormalization": "LpNorm",
    "Max": "VariadicElementwiseOp", "Min": "VariadicElementwiseOp", "Sum": "VariadicElementwiseOp",
    "ScatterND": "ScatterNDDisjointAndNoReduction",
}  # fmt: skip
# Computed when the file is loaded, or about shapes alone: these run on the processor by design.
_ON_PROCESSOR: Final = ("Constant", "Shape", "Size")

Use = tuple[str, str]
"""An operator, and the data type that it is used with."""


def kernels_of(library: bytes) -> frozenset[str]:
    """The names of the types in onnxruntime::cuda."""
    return frozenset(found[2][: int(found[1])].decode() for found in _TYPE.finditer(library))


def fates(files: Iterable[Path], kernels: frozenset[str]) -> dict[Use, tuple[int, str]]:
    """For every operator and data type of the files: how often it occurs, and where it runs."""
    count = Counter(use for path in files for use in _uses(path))
    return {use: (number, _fate(*use, kernels)) for use, number in sorted(count.items())}


def without_kernel(path: Path, instead_of_float32: str = "float32") -> set[Use]:
    """What of a file would leave the GPU by ONNX Runtime's own table; perhaps if its numbers were of another type."""
    told = {(name, instead_of_float32 if kind == "float32" else kind) for name, kind in _uses(path)}
    return {(name, kind) for name, kind in told if name not in _ON_PROCESSOR and kind not in TYPES.get(name, ())}


def _uses(path: Path) -> Iterator[Use]:
    """Every node's; explainers say the type of every value."""
    graph = onnx.load(path, load_external_data=False).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.output, *graph.value_info)}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in graph.node:
        values = node.input or node.output
        kind = kinds.get(values[OPERAND.get(node.op_type, 0)], onnx.TensorProto.UNDEFINED)
        yield node.op_type, _named(kind)


def _named(kind: int) -> str:
    return {"float": "float32", "double": "float64"}.get(name := onnx.TensorProto.DataType.Name(kind).lower(), name)


def _fate(operator: str, kind: str, kernels: frozenset[str]) -> str:
    if operator in _ON_PROCESSOR:
        return "processor, by design"
    if _CALLED.get(operator, operator) not in kernels:
        return "no kernel found"
    return "kernel" if kind in TYPES.get(operator, ()) else "none for this type"


def main(arguments: Sequence[str] | None = None) -> dict[Use, tuple[int, str]]:
    """Print a table of operators."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("explainers", type=Path, nargs="+")
    chosen = parser.parse_args(arguments)
    with zipfile.ZipFile(chosen.wheel) as archive:
        found = fates(chosen.explainers, kernels_of(archive.read(LIBRARY)))
    table = Table("operator", "type", "nodes", "CUDA")
    for (name, kind), (number, fate) in found.items():
        table.add_row(name, kind, str(number), fate)
    Console().print(table)
    return found


if __name__ == "__main__":
    main()
