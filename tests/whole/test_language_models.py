"""Language models of transformers, tiny and random: gradients are autograd's, AttnLRP is that of patched modules."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

import relcompile
from tests.compare import FLOAT32, FLOAT64, assert_close
from tests.oracles import patched_gradients

transformers = pytest.importorskip("transformers")
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": 50,
    "max_position_embeddings": 32, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
MODELS: Mapping[str, dict[str, Any]] = {
    "BertForSequenceClassification": {**SIZES, "num_labels": 3},
    "GPT2LMHeadModel": {
        "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "use_cache": False,
        "vocab_size": 50, "bos_token_id": 1, "eos_token_id": 2,
    },
    "LlamaForCausalLM": {**SIZES, "num_key_value_heads": 1, "use_cache": False},
}  # fmt: skip
IDS = torch.tensor([[3, 14, 15, 9, 26, 5], [35, 8, 9, 7, 9, 3]])
TARGET = torch.tensor([2, 0])
# Llama's norms and rotations are in float32, whatever the model is in.
TOLERANCE = {"LlamaForCausalLM": FLOAT32}


class Scores(nn.Module):
    """The scores of a model of transformers, of the last token of a text that goes on."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.of(input_ids=input_ids)

    def of(self, **inputs: Tensor) -> Tensor:
        scores = self.model(**inputs).logits
        return scores[:, -1] if scores.dim() == 3 else scores


class FromEmbeddings(nn.Module):
    """The same, from embedded tokens."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, embedded: Tensor) -> Tensor:
        return self.scores.of(inputs_embeds=embedded)


def scores_of(name: str) -> Scores:
    kind: Any = getattr(transformers, name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = kind(kind.config_class(**MODELS[name]))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return Scores(model).double().eval()


@contextmanager
def patched_modules() -> Generator[None]:
    """Activations by their secant, deviations of norms held, the product of a gated layer halved."""
    from transformers import activations
    from transformers.models.llama import modeling_llama as llama

    def rms_norm(self: Any, x: Tensor) -> Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon).detach()

    def gated(self: Any, x: Tensor) -> Tensor:
        return self.down_proj(patched_gradients.divided(self.act_fn(self.gate_proj(x)) * self.up_proj(x), 2))

    with ExitStack() as stack:
        for kind in (activations.GELUActivation, activations.NewGELUActivation, nn.Tanh):
            stack.enter_context(patch.object(kind, "forward", _by_secant(kind.forward)))
        stack.enter_context(patch.object(llama.LlamaRMSNorm, "forward", rms_norm))
        stack.enter_context(patch.object(llama.LlamaMLP, "forward", gated))
        yield


def _by_secant(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda self, x: patched_gradients.activation(lambda z: forward(self, z), x)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("rule", ["gradient*input", "attnlrp"])
@pytest.mark.parametrize("name", MODELS)
def test_relevance_of_tokens_is_the_patched_gradient_of_their_embeddings(name: str, rule: str) -> None:
    model = scores_of(name)
    embedded = model.model.get_input_embeddings()(IDS).detach()
    with patched_modules() if rule == "attnlrp" else ExitStack():
        method = rule if rule == "attnlrp" else None
        expected = patched_gradients.explain(FromEmbeddings(model), embedded, TARGET, method).sum(-1)
    output, relevance = relcompile.compile(model, IDS, rule=rule)(IDS, TARGET)
    assert_close(output, model(IDS).detach(), TOLERANCE.get(name, FLOAT64))
    assert_close(relevance, expected, TOLERANCE.get(name, FLOAT64))
