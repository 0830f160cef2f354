"""The table of CUDA kernels, on a library that holds a few type names."""

from __future__ import annotations

import zipfile
from pathlib import Path

from benchmarks.cuda_kernels import LIBRARY, kernels_of, main
from tests.runtime.test_runtime import write

NAMES = b"\0N11onnxruntime4cuda6MatMulIfEE\0N11onnxruntime4cuda10IdentityOpILb0EE\0N11onnxruntime5other3MulE\0"


def test_names_are_those_of_the_types_in_cuda() -> None:
    assert kernels_of(NAMES) == {"MatMul", "IdentityOp"}


def test_operators_without_a_kernel_are_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "gpu.whl", "w") as archive:
        archive.writestr(LIBRARY, NAMES)
    found = main([str(tmp_path / "gpu.whl"), str(write(tmp_path / "e.onnx")), str(write(tmp_path / "f.onnx", "fixed"))])
    assert found == {
        "Constant": (1, "processor, by design"),
        "Gather": (2, "no kernel found"),
        "MatMul": (2, "kernel"),
        "Mul": (2, "no kernel found"),
    }
