"""Which operators of these explainers have a CUDA kernel in ONNX Runtime's package for GPUs? Needs no GPU.

The package's library keeps the type names of its kernels (symbols are stripped). An operator without one runs on the
processor, between two copies. That a kernel is there says nothing of its data types, its speed or its numbers.

    pip download onnxruntime-gpu --no-deps -d wheels
    python -m benchmarks.cuda_kernels wheels/onnxruntime_gpu-*.whl model.z+.onnx model.root.onnx
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import onnx
from rich.console import Console
from rich.table import Table

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


def kernels_of(library: bytes) -> frozenset[str]:
    """The names of the types in onnxruntime::cuda."""
    return frozenset(found[2][: int(found[1])].decode() for found in _TYPE.finditer(library))


def fates(files: Iterable[Path], kernels: frozenset[str]) -> dict[str, tuple[int, str]]:
    """For every operator of the files: how often it occurs, and where it runs."""
    count = Counter(node.op_type for path in files for node in onnx.load(path).graph.node)
    return {name: (number, _fate(name, kernels)) for name, number in sorted(count.items())}


def _fate(operator: str, kernels: frozenset[str]) -> str:
    if operator in _ON_PROCESSOR:
        return "processor, by design"
    return "kernel" if _CALLED.get(operator, operator) in kernels else "no kernel found"


def main(arguments: Sequence[str] | None = None) -> dict[str, tuple[int, str]]:
    """Print a table of operators."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("explainers", type=Path, nargs="+")
    chosen = parser.parse_args(arguments)
    with zipfile.ZipFile(chosen.wheel) as archive:
        found = fates(chosen.explainers, kernels_of(archive.read(LIBRARY)))
    table = Table("operator", "nodes", "CUDA")
    for name, (number, fate) in found.items():
        table.add_row(name, str(number), fate)
    Console().print(table)
    return found


if __name__ == "__main__":
    main()
