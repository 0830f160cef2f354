"""Several targets for every sample: equal to as many runs, for the price of one forward half."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.errors import TargetError
from tests.compare import ONNX, assert_close
from tests.question.networks import X, captured, needs, residual

EXACT = 1e-12  # float64, the same operators on K times as many rows
CLASSES = torch.tensor([[1, 4, 0, 2], [3, 3, 1, 0], [0, 1, 2, 4]])
RULES = (
    "gradient",
    "epsilon",
    "relative-epsilon",
    "gamma",
    "z+",
    "alpha2beta1",
    "epsilon-gamma-box",
    "w2",
    "contrastive-lrp",
    "guided-backprop",
    "rectgrad=50",
    "grad-cam",
    "smoothgrad=3",
    "integrated-gradients=3",
    "deeplift-rescale",
    "deeplift-revealcancel",
    "root",
    "root-v1",
)


def explain(target: str, rule: str = "z+", **options: Any) -> relcompile.Explainer:
    return captured().compile(rule=rule, target=target, **needs(rule), **options)


def noise_of(explainer: relcompile.Explainer) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = [explainer.examples[record.name].shape[1:] for record in explainer.metadata.noise]
    return [torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


def stacked(answers: list[tuple[Tensor, ...]]) -> list[Tensor]:
    """Everything behind the prediction, (N, K, ...)."""
    return [torch.stack(same, 1) for same in zip(*(answer[1:] for answer in answers), strict=True)]


@pytest.mark.parametrize("rule", RULES)
def test_many_are_as_many_single_runs(rule: str) -> None:
    one, many = explain("index", rule), explain("indices", rule)
    noise = noise_of(one)
    output, *found = many(X, CLASSES, *noise)
    for actual, expected in zip(found, stacked([one(X, c, *noise) for c in CLASSES.T]), strict=True):
        assert_close(actual, expected, EXACT)
    assert output.shape == (3, 5)


def test_everything_that_is_read_has_the_axis() -> None:
    options: dict[str, Any] = {"taps": ["pool", "head"], "masks": ["joined"], "absorbed": True}
    one, many = (explain(target, "epsilon=0.25", **options) for target in ("index", "indices"))
    masks = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    _, *found = many(X, CLASSES, masks)
    answers = [one(X, c, masks[:, k]) for k, c in enumerate(CLASSES.T)]
    for actual, expected in zip(found, stacked(answers), strict=True):
        assert_close(actual, expected, EXACT)
    for actual, expected in zip(many(X, CLASSES), many(X, CLASSES, torch.ones_like(masks)), strict=True):
        assert_close(actual, expected, EXACT)


def test_a_mask_in_two_walks() -> None:
    one, many = (explain(target, "contrastive-lrp", masks=["joined"]) for target in ("index", "indices"))
    masks = torch.rand(3, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    answers = [one(X, c, masks[:, k]) for k, c in enumerate(CLASSES.T)]
    assert_close(many(X, CLASSES, masks)[1], stacked(answers)[0], EXACT)


@pytest.mark.parametrize(
    ("target", "classes"), [("4,0", [4, 0]), ("all", [0, 1, 2, 3, 4]), ("topk:2", None), ("topk:1", None)]
)
def test_classes_that_the_explainer_chooses(target: str, classes: list[int] | None) -> None:
    explainer = explain(target)
    output, relevance, chosen = explainer(X)
    expected = output.topk(int(target[-1])).indices if classes is None else torch.tensor(classes).expand(3, -1)
    assert torch.equal(chosen, expected)
    assert_close(relevance, explain("indices")(X, expected)[1], EXACT)
    assert explainer.metadata.target.questions == expected.shape[1]
    assert explainer.metadata.output_names[-1] == "target"


@pytest.mark.parametrize("start", [None, "pool"])
def test_seeds(start: str | None) -> None:
    one, many = explain("seed", start=start), explain("seeds", start=start)
    shape = (3, 2, 5) if start is None else (3, 2, 4, 4, 4)
    seeds = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert_close(many(X, seeds)[1], stacked([one(X, seeds[:, k]) for k in range(2)])[0], EXACT)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z+"])
def test_what_knows_nothing_of_questions_is_computed_once(rule: str) -> None:
    """No convolution or product of matrices that does not carry relevance sees K rows a sample."""
    one, many = explain("index", rule), explain("indices", rule)
    heavy = {torch.ops.aten.convolution.default, torch.ops.aten.linear.default, torch.ops.aten.matmul.default}

    def batches(explainer: relcompile.Explainer) -> list[str]:
        nodes = explainer.graph_module.graph.nodes
        return [str(node.meta["val"].shape[0]) for node in nodes if node.target in heavy]

    samples = str(many.graph_module.graph.find_nodes(op="placeholder")[-1].meta["val"].shape[0])
    assert len(batches(many)) == len(batches(one))
    of_walk = sum(batch != samples for batch in batches(many))
    assert 4 <= of_walk <= 8  # four layers, twice where the sign of the input is not known
    assert len(batches(many)) - of_walk >= 4


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "z+", "alpha2beta1", "contrastive-lrp"])
def test_quotients_of_the_forward_half_are_made_once(rule: str) -> None:
    """Of K rows nothing is divided but the choice of the class, and what contrastive-lrp normalises maps by."""
    module = explain("indices", rule).graph_module
    samples = module.graph.find_nodes(op="placeholder")[-1].meta["val"].shape[0]
    quotients = [node for node in module.graph.nodes if node.target is torch.ops.aten.div.Tensor]
    of_questions = [
        node
        for node in quotients
        if any(size != samples for size in node.meta["val"].shape if not isinstance(size, int))
    ]
    assert len(of_questions) == (3 if rule == "contrastive-lrp" else 1)
    assert len(quotients) > 3


class Tokens(nn.Module):
    """Attention over the tokens of a sample; the heads have an axis of their own, or share that of the batch."""

    def __init__(self, *, folded: bool = False) -> None:
        super().__init__()
        self.layers, self.folded = nn.ModuleList(nn.Linear(4, 4) for _ in range(3)), folded
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.heads(layer(x)) for layer in self.layers)
        mixed = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.head(mixed.reshape(-1, 2, 5, 2).transpose(1, 2).reshape(-1, 5, 4).mean(1))

    def heads(self, x: Tensor) -> Tensor:
        apart = x.reshape(-1, 5, 2, 2).transpose(1, 2)
        return apart.reshape(-1, 5, 2) if self.folded else apart


class Transposed(nn.Module):
    """The batch on the second axis, and heads in front of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        moved = self.layer(x.permute(1, 0, 2)).sigmoid() * x.permute(1, 0, 2)
        return self.head(moved.mean(0))


@pytest.mark.parametrize("build", [Tokens, Transposed])
def test_samples_along_other_axes(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, x = build().double().eval(), torch.randn(3, 5, 4, dtype=torch.float64)
    one, many = (relcompile.compile(model, x, rule="gradient", target=target) for target in ("index", "indices"))
    classes = torch.tensor([[0, 2], [1, 1], [2, 0]])
    assert_close(many(x, classes)[1], stacked([one(x, c) for c in classes.T])[0], EXACT)


def test_a_batch_that_shares_its_axis_is_refused() -> None:
    with pytest.raises(relcompile.UnsupportedOperatorError, match=r"no axis of its own: .*ask one question at a time"):
        relcompile.compile(Tokens(folded=True), torch.randn(3, 5, 4), rule="gradient", target="indices")


def test_a_file_answers_any_number(tmp_path: Path) -> None:
    x = X.float()
    explainer = relcompile.compile(residual().float(), x, rule="z+", target="indices", taps=["pool"], masks=["joined"])
    explainer.save(tmp_path / "many.onnx")
    loaded = relcompile.load(tmp_path / "many.onnx", device="cpu")
    for classes in (CLASSES, CLASSES[:, :1]):
        found = loaded.explain(x.numpy(), target=classes.numpy())
        _, relevance, tap = explainer(x, classes)
        assert_close(found.relevance, relevance, ONNX)
        assert_close(found.taps["pool"], tap, ONNX)
        assert found.target is not None
        assert np.array_equal(found.target, classes.numpy())
    same = loaded.explain(x.numpy(), target=[2, 0]).target
    assert same is not None
    assert np.array_equal(same, [[2, 0]] * 3)
    assert loaded.metadata.taps[0].shape == ("batch", "questions", 4, 4, 4)
    assert loaded.metadata.masks[0].input.shape == ("batch", "questions", 4)
    with pytest.raises(TargetError, match="several"):
        loaded.explain(x.numpy(), target=np.zeros((2, 3), np.int64))


def test_a_file_says_what_it_chose(tmp_path: Path) -> None:
    explainer = relcompile.compile(residual().float(), X.float(), rule="z+", target="topk:3")
    explainer.save(tmp_path / "top.onnx")
    found = relcompile.load(tmp_path / "top.onnx", device="cpu").explain(X.float().numpy())
    assert found.target is not None
    assert np.array_equal(found.target, np.argsort(-found.output, 1)[:, :3])
    assert found.relevance.shape == (3, 3, 2, 8, 8)


WRONG: dict[str, tuple[str, str]] = {
    "no number": ("topk:many", "must be index, argmax"),
    "another kind": ("best:2", "must be index, argmax"),
    "too many": ("topk:6", "topk:6 does not exist: the explained output has 5"),
    "none": ("topk:0", "topk:0 does not exist"),
    "no such class": ("3,5", "target 5 does not exist"),
    "half a list": ("3,", "must be index, argmax"),
}


@pytest.mark.parametrize("name", WRONG)
def test_targets_that_do_not_exist(name: str) -> None:
    target, message = WRONG[name]
    with pytest.raises(TargetError, match=message):
        explain(target)


@pytest.mark.parametrize("target", ["indices", "all", "topk:1", "0,0"])
def test_one_number_a_sample_has_no_classes(target: str) -> None:
    with pytest.raises(TargetError, match="several targets need classes"):
        relcompile.compile(nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)), torch.ones(2, 4), target=target)


@pytest.mark.parametrize("target", [torch.tensor([1, 2, 3]), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(3, 2)])
def test_targets_of_a_wrong_shape(target: Tensor) -> None:
    with pytest.raises(TargetError, match="questions"):
        explain("indices")(X, target)
