"""An explainer of photographs of 4 x 4 pixels that is a matrix, and photographs for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx.parser
from onnx import numpy_helper
from PIL import Image

from relcompile.files.records import InputRecord
from relcompile.preprocessing import Preprocessing
from tests.runtime.test_runtime import HEADER, MULTIPLIER, TARGETS, describe, save

WEIGHTS = np.random.default_rng(0).standard_normal((48, 4)).astype(np.float32)
PREPROCESSING = Preprocessing(None, "bilinear", None, (0.5, 0.4, 0.3), (0.5, 0.6, 0.7))

SUM = """one = Constant <value_ints=[1]> ()
            sum = ReduceSum (whole, one)
            relevance = Cast <to=10> (sum)"""


def explainer(path: Path, mode: str = "index", summed: bool = False) -> Path:
    """relevance = x * W[:, target], of the best class or of the one that is given; summed over channels, in float16."""
    kind, channels = ("float16", 1) if summed else ("float", 3)
    last = "whole" if summed else "relevance"
    entry = ", int64[batch] target" * (mode == "index")
    model = onnx.parser.parse_model(f"""{HEADER}
        explainer (float[batch, 3, 4, 4] input{entry})
            => (float[batch, 4] output, {kind}[batch, {channels}, 4, 4] relevance)
        {{
            flat = Flatten (input)
            output = MatMul (flat, W)
            {MULTIPLIER[mode]}
            found = Mul (flat, multiplier)
            shape = Constant <value_ints=[-1, 3, 4, 4]> ()
            {last} = Reshape (found, shape)
            {SUM if summed else ""}
        }}""")
    constants = {"W": WEIGHTS, "WT": np.ascontiguousarray(WEIGHTS.T)}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    inputs = (InputRecord("input", ("batch", 3, 4, 4), "float32"),)
    told = describe(mode, inputs=inputs, preprocessing=PREPROCESSING, target=TARGETS[mode])
    forms = {"reduce": "sum", "output_dtype": "float16"} if summed else {}
    return save(path, model, replace(told, **forms).to_json())


def pixels(seed: int) -> np.ndarray:
    """A photograph (4, 4, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)


def folder_of(folder: Path, count: int) -> Path:
    """PNG files 00000.png, ..."""
    folder.mkdir(parents=True)
    for seed in range(count):
        Image.fromarray(pixels(seed)).save(folder / f"{seed:05}.png")
    return folder


def truth(seed: int, target: int | None) -> tuple[np.ndarray, np.ndarray, int]:
    """Scores (4,), relevance (3, 4, 4), and the class, by hand."""
    mean, std = (np.array(each).reshape(3, 1, 1) for each in (PREPROCESSING.mean, PREPROCESSING.std))
    x = (pixels(seed).transpose(2, 0, 1) / 255 - mean) / std
    scores = x.reshape(-1) @ WEIGHTS
    chosen = int(scores.argmax()) if target is None else target
    return scores, x * WEIGHTS[:, chosen].reshape(3, 4, 4), chosen
