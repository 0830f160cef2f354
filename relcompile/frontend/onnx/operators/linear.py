"""Linear models of ai.onnx.ml, as exporters of scikit-learn write them: their weights are attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from relcompile.frontend.onnx.node import Node

_TRANSFORMS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "NONE": lambda x: x,
    "LOGISTIC": torch.sigmoid,
    "SOFTMAX": lambda x: torch.softmax(x, -1),
}
_NORMS: Final[Mapping[str, Callable[[Tensor], Tensor]]] = {
    "L1": lambda x: functional.normalize(x, 1, -1),
    "L2": lambda x: functional.normalize(x, 2, -1),
    "MAX": lambda x: x / x.amax(-1, keepdim=True),
}


def classifier(node: Node, x: Tensor) -> tuple[Tensor, Tensor]:
    """The class of each row, called as the file does where that is a number; and the scores of all classes."""
    scores = _affine(node, x, len(node.floats("intercepts")))
    best, labels = scores.argmax(-1), node.integers("classlabels_ints")
    return best if labels is None else torch.tensor(labels)[best], _transformed(node, scores)


def regressor(node: Node, x: Tensor) -> Tensor:
    """A row of weights for each target."""
    return _transformed(node, _affine(node, x, node.integer("targets", 1)))


def scaler(node: Node, x: Tensor) -> Tensor:
    """Without the offset, times the scale; of all features, or of each."""
    return (x.float() - torch.tensor(node.floats("offset"))) * torch.tensor(node.floats("scale"))


def normaliser(node: Node, x: Tensor) -> Tensor:
    """Divided by a norm of the row."""
    return _NORMS[node.text("norm", "MAX")](x.float())


def refusal(node: Node) -> str | None:
    """Functions that torch does not have so, and two classes with one score."""
    transform = node.text("post_transform", "NONE")
    if transform not in _TRANSFORMS:
        return f"its post_transform is {transform}"
    one = node.operator.endswith("LinearClassifier") and len(node.floats("intercepts")) < 2
    return "it has one score for two classes" if one else None


def _affine(node: Node, x: Tensor, rows: int) -> Tensor:
    weight, bias = (torch.tensor(node.floats(name)) for name in ("coefficients", "intercepts"))
    weight = weight[: rows * x.shape[-1]].reshape(rows, -1)  # ONNX Runtime, too, leaves out what is too much
    return functional.linear(x.float(), weight, bias if len(bias) else None)


def _transformed(node: Node, scores: Tensor) -> Tensor:
    return _TRANSFORMS[node.text("post_transform", "NONE")](scores)
