"""The table of CUDA kernels, on a library that holds a few type names."""

from __future__ import annotations

import zipfile
from pathlib import Path

import onnx
import onnx.parser

from benchmarks.cuda_kernels import LIBRARY, kernels_of, main, without_kernel
from tests.runtime.test_runtime import write

NAMES = b"\0N11onnxruntime4cuda6MatMulIfEE\0N11onnxruntime4cuda10IdentityOpILb0EE\0N11onnxruntime5other3MulE\0"


def test_names_are_those_of_the_types_in_cuda() -> None:
    assert kernels_of(NAMES) == {"MatMul", "IdentityOp"}


def test_operators_without_a_kernel_are_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "gpu.whl", "w") as archive:
        archive.writestr(LIBRARY, NAMES)
    found = main([str(tmp_path / "gpu.whl"), str(write(tmp_path / "e.onnx")), str(write(tmp_path / "f.onnx", "fixed"))])
    assert found == {
        ("Constant", "undefined"): (1, "processor, by design"),
        ("Gather", "float32"): (2, "no kernel found"),
        ("MatMul", "float32"): (2, "kernel"),
        ("Mul", "float32"): (2, "no kernel found"),
    }


def test_a_type_without_a_kernel_is_told(tmp_path: Path) -> None:
    text = """<ir_version: 10, opset_import: ["": 20]>
        types (bfloat16[2] a, float[2] b, bool[2] c) => (bfloat16[2] d, float[2] e, float[2] f) {
            d = Softplus (a)
            e = Where (c, b, b)
            f = Mish (b)
        }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "types.onnx")
    assert without_kernel(tmp_path / "types.onnx") == {("Softplus", "bfloat16"), ("Mish", "float32")}
    assert without_kernel(tmp_path / "types.onnx", "int16") == {
        ("Softplus", "bfloat16"),
        ("Mish", "int16"),
        ("Where", "int16"),
    }
