"""An explainer that takes its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx.parser
from onnx import numpy_helper

from tests.runtime.test_runtime import HEADER, MULTIPLIER, W, describe, save


def slow(path: Path) -> Path:
    """The linear explainer of the runtime's tests, which takes half a second to say the same."""
    model = onnx.parser.parse_model(f"""{HEADER}
        slow (float[batch, 3] input, int64[batch] target) => (float[batch, 4] output, float[batch, 3] relevance) {{
            wide = MatMul (input, A)
            tall = Transpose <perm=[1, 0]> (wide)
            m0 = MatMul (tall, wide)
            m1 = MatMul (m0, M)  m2 = MatMul (m1, M)  m3 = MatMul (m2, M)
            sum = ReduceMean <keepdims=0> (m3)
            nothing = Mul (sum, zero)
            exact = MatMul (input, W)
            output = Add (exact, nothing)
            {MULTIPLIER["index"]}
            relevance = Mul (input, multiplier)
        }}""")
    side = 1600
    generator = np.random.default_rng(0)
    constants = {
        "W": W,
        "WT": np.ascontiguousarray(W.T),
        "zero": np.zeros((), np.float32),
        "A": generator.standard_normal((3, side), np.float32) / side,
        "M": generator.standard_normal((side, side), np.float32) / side,
    }
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return save(path, model, describe().to_json())
