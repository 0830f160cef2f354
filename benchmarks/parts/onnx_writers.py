"""What writes ONNX files: both exporters of torch, Keras, scikit-learn, a quantiser."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

Writer = Callable[[Path], Path]  # from a folder to the file that it has written into it


def folder_of(package: str) -> Path:
    """Of an installed package, which is not imported.

    Raises:
        ModuleNotFoundError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} is not installed")
    return Path(spec.submodule_search_locations[0])


def by_torchscript(make: Callable[[], nn.Module], opset: int, shape: tuple[int, ...] = (2, 3, 16, 16)) -> Writer:
    """By the exporter before `torch.export`; the batch is free."""

    def place(folder: Path) -> Path:
        path = folder / "model.onnx"
        torch.onnx.export(
            make().eval(),
            (torch.randn(shape),),
            path,
            dynamo=False,
            opset_version=opset,
            input_names=["x"],
            output_names=["scores"],
            dynamic_axes={"x": {0: "batch"}},
        )
        return path

    return place


def by_torch_export(make: Callable[[], nn.Module], opset: int, shape: tuple[int, ...] = (2, 3, 16, 16)) -> Writer:
    """By the exporter of today; the batch is free."""

    def place(folder: Path) -> Path:
        path = folder / "model.onnx"
        program: Any = torch.onnx.export(
            make().eval(),
            (torch.randn(shape),),
            dynamo=True,
            opset_version=opset,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["x"],
            output_names=["scores"],
        )
        program.save(path)
        return path

    return place


def by_sklearn(kind: str) -> Writer:
    """A network of scikit-learn, by skl2onnx; of a classifier without the map that names its classes."""

    def place(folder: Path) -> Path:
        import numpy as np
        from skl2onnx import to_onnx  # pyright: ignore[reportMissingImports]
        from sklearn import neural_network

        x = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
        y = (x[:, 0] * x[:, 1] > 0).astype(int) + (x[:, 2] > 1)
        model = getattr(neural_network, kind)(hidden_layer_sizes=(16, 12), max_iter=30, random_state=0, tol=1.0).fit(
            x, y
        )
        options = {"zipmap": False} if "Classifier" in kind else None
        path = folder / "model.onnx"
        made: Any = to_onnx(model, x[:1], options=options)
        path.write_bytes(made.SerializeToString())
        return path

    return place


def by_keras(folder: Path) -> Path:
    """A small convolutional network of Keras, by its own exporter."""
    import os

    os.environ["KERAS_BACKEND"] = "torch"
    import keras  # pyright: ignore[reportMissingImports]

    keras.utils.set_random_seed(0)
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((16, 16, 3)), layers.Conv2D(8, 3, activation="relu"), layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same", activation="relu6"), layers.MaxPooling2D(),
            layers.GlobalAveragePooling2D(), layers.Dense(12, activation="elu"), layers.Dense(5),
        ]
    )  # fmt: skip
    path = folder / "model.onnx"
    net(torch.zeros(1, 16, 16, 3))
    net.export(str(path), format="onnx", verbose=False)
    return path


def quantised(form: str, plain: Writer) -> Writer:
    """A file with one input `x`, quantised after eight batches by ONNX Runtime's own tool."""

    def place(folder: Path) -> Path:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

        class Data(CalibrationDataReader):
            def __init__(self) -> None:
                torch.manual_seed(1)
                self.left = [{"x": torch.randn(2, 3, 16, 16).numpy()} for _ in range(8)]

            def get_next(self) -> Any:
                return self.left.pop() if self.left else None

        path = folder / "quantised.onnx"
        quantize_static(plain(folder), path, Data(), quant_format=QuantFormat[form])
        return path

    return place
