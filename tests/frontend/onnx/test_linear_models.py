"""Classifiers as exporters of scikit-learn write them: scaled, normalised, linear, with a map from names to scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

import relcompile
from passes.errors import UnsupportedOperatorError
from relcompile.frontend.onnx.reading import read_onnx
from tests.frontend.onnx.files import ALL_TO_THE_LAST_DIGITS, Drawn, compared

ML = "ai.onnx.ml"
DRAWN = Drawn()
X, W, B = DRAWN.normal(4, 5), DRAWN.normal(3, 5), DRAWN.normal(3)
OFFSET, SCALE = DRAWN.normal(5), DRAWN.normal(5)
LABELS: dict[str, list[Any]] = {"ints": [7, 2, 5], "strings": ["dog", "cat", "emu"]}


def classifier(path: Path, kind: str, **changes: Any) -> Path:
    """label, probabilities = of softmax(W (x - offset) scale / |x| + b), normed, named."""
    strings = kind == "strings"
    linear: dict[str, Any] = {
        "coefficients": W.ravel(),
        "intercepts": B,
        f"classlabels_{kind}": LABELS[kind],
        "post_transform": "SOFTMAX",
    }
    names: dict[str, Any] = {"classlabels_strings" if strings else "classlabels_int64s": LABELS[kind]}
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], domain=ML, offset=OFFSET, scale=SCALE),
        helper.make_node("Normalizer", ["scaled"], ["normed"], domain=ML, norm="L2"),
        helper.make_node("LinearClassifier", ["normed"], ["label", "scores"], domain=ML, **{**linear, **changes}),
        helper.make_node("Normalizer", ["scores"], ["shares"], domain=ML, norm="L1"),
        helper.make_node("ZipMap", ["shares"], ["named"], domain=ML, **names),
    ]
    label, scores = (TensorProto.STRING if strings else TensorProto.INT64), helper.make_tensor_type_proto(1, [])
    outputs = [
        helper.make_tensor_value_info("label", label, ["n"]),
        helper.make_value_info("named", helper.make_sequence_type_proto(helper.make_map_type_proto(label, scores))),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])]
    imports = [helper.make_opsetid(ML, 1), helper.make_opsetid("", 20)]
    graph = helper.make_graph(nodes, "graph", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=10), path)
    return path


@pytest.mark.parametrize("kind", LABELS)
def test_names_of_classes_are_read_over(kind: str, tmp_path: Path) -> None:
    path = classifier(tmp_path / "x.onnx", kind)
    assert compared(path, x=X) < ALL_TO_THE_LAST_DIGITS
    assert [output.name for output in read_onnx(path).graph.outputs] == [
        *(["label"] if kind == "ints" else []),
        "named",
    ]


def test_the_gradient_is_that_of_the_formula(tmp_path: Path) -> None:
    model, x = relcompile.read_model(classifier(tmp_path / "x.onnx", "strings")), torch.from_numpy(X)
    explainer = relcompile.compile(model, x, rule="gradient", target=1)
    double = x.double().requires_grad_()
    offset, scale, weight, bias = (torch.from_numpy(array).double() for array in (OFFSET, SCALE, W, B))
    row = (double - offset) * scale
    scores = torch.softmax(row / row.square().sum(1, keepdim=True).sqrt() @ weight.T + bias, 1)
    (wanted,) = torch.autograd.grad(scores[:, 1].sum(), double)
    assert abs(explainer(x)[1] - wanted).max() < ALL_TO_THE_LAST_DIGITS * abs(wanted).max()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"post_transform": "PROBIT"}, "its post_transform is PROBIT"),
        ({"coefficients": W[0], "intercepts": B[:1]}, "it has one score for two classes"),
    ],
)
def test_what_is_not_read_is_named(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedOperatorError, match=f"LinearClassifier.*: {told}"):
        read_onnx(classifier(tmp_path / "x.onnx", "ints", **changes))
