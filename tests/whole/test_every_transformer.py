"""AttnLRP of transformers' classes, against an oracle that changes the gradients of torch's functions."""

from __future__ import annotations

import pytest
import torch

import relcompile
from tests.compare import FLOAT32, assert_close
from tests.oracles import changed_functions

pytest.importorskip("transformers")
from benchmarks.parts.zoo_transformers import transformers_models

SPECIMENS = {specimen.name: specimen for specimen in transformers_models()}
RELEVANCE = 1e-8
# Norms and rotations of these are in float32, whatever the model is in.
IN_FLOAT32: tuple[str, ...] = ()


@pytest.mark.sampled(8)
@pytest.mark.parametrize("name", SPECIMENS)
def test_attnlrp_is_the_gradient_of_changed_functions(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, inputs = SPECIMENS[name].build()
    model = model.double().eval().requires_grad_(False)
    inputs = {key: x.double() if x.is_floating_point() else x for key, x in inputs.items()}
    target = torch.tensor([0, 1])
    expected = changed_functions.explain(model, inputs, target, SPECIMENS[name].embedding)
    explainer = relcompile.compile(model, inputs, rule="attnlrp")
    found = explainer(*inputs.values(), target)
    assert_close(found[len(explainer.metadata.outputs)], expected, FLOAT32 if name in IN_FLOAT32 else RELEVANCE)
