"""The explained output by its name: keys of dictionaries, of named tuples and of what transformers returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

import relcompile
from relcompile.errors import InputSpecError
from tests.compare import FLOAT64, assert_close


class Both(NamedTuple):
    scores: Tensor
    features: Tensor


class Nested(nn.Module):
    """Scores (N, 3) and features (N, 4), in whatever `packed` makes of them."""

    def __init__(self, packed: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.stem, self.head, self.packed = nn.Linear(5, 4), nn.Linear(4, 3), packed

    def forward(self, x: Tensor) -> Any:
        features = self.stem(x).relu()
        return self.packed(self.head(features), features)


def of_transformers(scores: Tensor, features: Tensor) -> SequenceClassifierOutput:
    return SequenceClassifierOutput(logits=scores, hidden_states=(features,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("packed", "scores", "features"),
    [
        (lambda s, f: (s, f), "output_0", "output_1"),
        (lambda s, f: (s, (f, [f])), "output_0", "1_1_0"),
        (lambda s, f: {"hidden": f, "logits": s}, "logits", "hidden"),
        (lambda s, f: {"heads": {"main": s}, "maps": [f]}, "heads_main", "maps_0"),
        (Both, "scores", "features"),
        (of_transformers, "logits", "hidden_states_0"),
    ],
    ids=["tuple", "tuple-of-tuples", "dictionary", "dictionaries", "named-tuple", "transformers"],
)
def test_an_output_is_explained_by_name(packed: Callable[..., Any], scores: str, features: str) -> None:
    torch.manual_seed(0)
    model = Nested(packed).double().eval()
    x, target = torch.randn(2, 5).double().requires_grad_(), torch.tensor([2, 1])
    hidden = model.stem(x).relu()
    for name, output in ((scores, model.head(hidden)), (features, hidden)):
        explainer = relcompile.compile(model, x.detach(), rule="gradient", output=name)
        relevance = explainer(x.detach(), target)[len(explainer.metadata.outputs)]
        expected = torch.autograd.grad(output[torch.arange(2), target].sum(), x, retain_graph=True)[0]
        assert explainer.metadata.explained == name
        assert_close(relevance, expected, FLOAT64)


def test_a_name_that_no_output_has_is_refused_with_those_there_are() -> None:
    model = Nested(lambda s, f: {"logits": s, "hidden": f})
    with pytest.raises(InputSpecError, match=r"no floating point output scores.*0: logits float32, 1: hidden float32"):
        relcompile.compile(model, torch.randn(2, 5), output="scores")
