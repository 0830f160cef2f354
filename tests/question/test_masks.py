"""Conditional relevance: masks of channels on what passes a layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.errors import InputSpecError
from tests.compare import FLOAT64, ONNX, assert_close
from tests.question.networks import TARGET, X, captured, needs, residual

CHANNELS = torch.eye(4, dtype=torch.float64)


def linear(*weight: list[float]) -> nn.Linear:
    layer = nn.Linear(len(weight[0]), len(weight), bias=False)
    layer.weight = nn.Parameter(torch.tensor(weight))
    return layer


class TwoLayers(nn.Module):
    """The example of concept relevance propagation by hand: x = (-1, 1), layer1 (1, 1), layer2 (1, 0), output 10."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1, self.layer2 = linear([1.0, 2.0], [0.0, 1.0]), linear([2.0, 3.0], [0.0, 0.0])
        self.head = linear([1.0, 4.0, 5.0, 0.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.cat([self.layer1(x), self.layer2(x)], 1))


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ({}, [-11.0, 21.0]),
        ({"mask_layer1": [1.0, 0.0], "mask_layer2": [0.0, 0.0]}, [-1.0, 2.0]),
        ({"mask_layer1": [0.0, 1.0], "mask_layer2": [0.0, 0.0]}, [0.0, 4.0]),
        ({"mask_layer1": [0.0, 0.0]}, [-10.0, 15.0]),
    ],
)
@pytest.mark.parametrize("rule", ["lrp-0", "gradient*input"])
def test_the_example_by_hand(rule: str, masks: dict[str, list[float]], expected: list[float]) -> None:
    x = torch.tensor([[-1.0, 1.0]])
    explainer = relcompile.compile(TwoLayers(), x, rule=rule, masks=["layer1", "layer2"], target=0)
    given = {name: torch.tensor([values]) for name, values in masks.items()}
    assert_close(explainer(x, **given)[1], torch.tensor([expected]), 1e-6)


@pytest.mark.parametrize(
    "rule", ["epsilon", "gamma", "z+", "epsilon-gamma-box", "deeplift-rescale", "gradient", "root-v1"]
)
def test_masks_that_add_up_to_all_give_maps_that_add_up_to_the_whole(rule: str) -> None:
    explainer = captured().compile(rule=rule, masks=["joined"], taps=["joined"], **needs(rule))
    whole = captured().compile(rule=rule, **needs(rule))(X, TARGET)[1]
    maps = [explainer(X, TARGET, channel.expand(3, 4)) for channel in CHANNELS]
    assert_close(sum(found[1] for found in maps), whole, FLOAT64)
    assert_close(explainer(X, TARGET)[1], whole, FLOAT64)
    for k, found in enumerate(maps):
        assert found[2][:, k].abs().max() > 0
        assert not found[2][:, [j for j in range(4) if j != k]].any()


def test_a_mask_is_of_its_sample() -> None:
    explainer = captured().compile(rule="z+", masks=["joined"])
    of_two = explainer(X[:2], TARGET[:2], CHANNELS[[1, 3]])[1]
    for n, channel in enumerate((1, 3)):
        alone = explainer(X[n : n + 1], TARGET[n : n + 1], CHANNELS[[channel]])[1]
        assert_close(of_two[n : n + 1], alone, FLOAT64)


def test_masks_of_copies() -> None:
    explainer = captured().compile(rule="smoothgrad=3", masks=["joined"])
    noise = torch.zeros(3, 3, *X.shape[1:], dtype=torch.float64)
    mask = CHANNELS[[0, 2, 3]]
    plain = captured().compile(rule="gradient", masks=["joined"])(X, TARGET, mask)[1]
    assert_close(explainer(x=X, target=TARGET, noise=noise, mask_joined=mask)[1], plain, FLOAT64)


def test_a_file_masks(tmp_path: Path) -> None:
    x = X.float()
    explainer = relcompile.compile(residual().float(), x, rule="z+", masks=["joined"])
    explainer.save(tmp_path / "mask.onnx")
    loaded = relcompile.load(tmp_path / "mask.onnx", device="cpu")
    assert [(mask.layer, mask.input.shape) for mask in loaded.metadata.masks] == [("joined", ("batch", 4))]
    mask = CHANNELS[[0, 2, 3]].float()
    masked = loaded.explain(x.numpy(), target=TARGET.numpy(), masks={"joined": mask.numpy()})
    assert_close(masked.relevance, explainer(x, TARGET, mask)[1], ONNX)
    assert_close(loaded.explain(x.numpy(), target=TARGET.numpy()).relevance, explainer(x, TARGET)[1], ONNX)
    with pytest.raises(InputSpecError, match="masks of pool was given, but the file takes joined"):
        loaded.explain(x.numpy(), target=TARGET.numpy(), masks={"pool": mask.numpy()})
    with pytest.raises(InputSpecError, match=r"mask_joined wants float32 \['batch', 4\]"):
        loaded.explain(x.numpy(), target=TARGET.numpy(), masks={"joined": np.ones((3, 5), np.float32)})


class Scores(nn.Module):
    """One number per sample, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.total = nn.Flatten(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.total(x * x)


def test_what_has_no_channels() -> None:
    with pytest.raises(InputSpecError, match="layer 'total' has no axis of channels"):
        relcompile.compile(Scores(), torch.ones(2, 1), masks=["total"])


def test_names_with_dots() -> None:
    ones = linear([1.0, 1.0], [1.0, 1.0], [1.0, 1.0]), linear([1.0, 1.0, 1.0], [1.0, 1.0, 1.0])
    model, x = nn.Sequential(nn.Sequential(ones[0], nn.ReLU()), ones[1]), torch.ones(2, 2)
    explainer = relcompile.compile(model, x, rule="z+", masks=["0.1"], taps=["0.0"], target=1)
    assert explainer.metadata.masks[0].layer == "0.1"
    assert not explainer(x, mask_0_1=torch.zeros(2, 3))[1].any()
    assert explainer(x)[1].any()


def test_masks_need_a_layer() -> None:
    with pytest.raises(relcompile.UnknownLayerError, match="no layer called 'nothing'"):
        captured().compile(masks=["nothing"])
