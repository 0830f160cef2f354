"""What files need of a GPU, where there is none."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cuda_kernels import without_kernel


def assert_cuda_kernels(path: Path) -> None:
    """Every operator of the file has a CUDA kernel in ONNX Runtime for its data types, in float32 and in float16."""
    for kind in ("float32", "float16"):
        assert without_kernel(path, kind) == set(), f"in {kind}, this would leave the GPU"
