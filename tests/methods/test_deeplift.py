"""DeepLIFT on the papers' own examples, against captum, on operators of every kind; and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import DeepLift
from torch import Tensor, nn

import relcompile
from passes.errors import UnsupportedOperatorError, UnsupportedRuleError
from relcompile.backend.onnx_file import save
from relcompile.errors import CompositeError, InputSpecError
from relcompile.methods.composites import Entry
from relcompile.methods.presets import deeplift_rescale
from relcompile.methods.rules.affine import Epsilon
from relcompile.question.references import parse_reference
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved
from tests.oracles.nets import Function

SHIFT = 1e-6  # RevealCancel moves contributions near 0 by 1e-7


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def minimum(x: Tensor) -> Tensor:
    """min(i1, i2) = i1 - relu(i1 - i2)."""
    return x[:, 0] - (x[:, 0] - x[:, 1]).relu()


def both(x: Tensor) -> Tensor:
    """i1 AND i2 = relu(i1 + i2 - 1)."""
    return (x.sum(1) - 1.0).relu()


X = torch.tensor([[3.0, 2.0], [1.0, 4.0]], dtype=torch.float64)
EXAMPLES: dict[str, tuple[Any, Tensor, dict[str, list[list[float]]]]] = {
    # Shrikumar et al. 2017, section 3.5.3: RevealCancel gives half of the minimum to either input.
    "minimum": (
        minimum,
        X,
        {"deeplift-revealcancel": [[1.0, 1.0], [0.5, 0.5]], "deeplift-rescale": [[0.0, 2.0], [1.0, 0.0]]},
    ),
    # Both contributions are positive, so that neither method can tell them apart.
    "and": (
        both,
        torch.ones(1, 2, dtype=torch.float64),
        {"deeplift-revealcancel": [[0.5, 0.5]], "deeplift-rescale": [[0.5, 0.5]]},
    ),
    # Figure 1 of the paper: 1 - relu(1 - i1 - i2) is saturated at (1, 1), where the gradient is 0.
    "saturated": (
        lambda x: 1.0 - (1.0 - x.sum(1)).relu(),
        torch.ones(1, 2, dtype=torch.float64),
        {"deeplift-revealcancel": [[0.5, 0.5]], "deeplift-rescale": [[0.5, 0.5]]},
    ),
    # Figure 2: relu(i1 - 10) jumps under gradient * input, and not under DeepLIFT.
    "bias": (
        lambda x: (x - 10.0).relu().sum(1),
        torch.tensor([[10.5, 9.0]], dtype=torch.float64),
        {"deeplift-revealcancel": [[0.5, 0.0]], "deeplift-rescale": [[0.5, 0.0]]},
    ),
    "product": (lambda x: x[:, 0] * x[:, 1], X, {"deeplift-rescale": [[3.0, 3.0], [2.0, 2.0]]}),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name: str) -> None:
    function, x, expected = EXAMPLES[name]
    for rule, relevance in expected.items():
        explainer = relcompile.compile(Function(lambda x: function(x)[:, None]), x, rule=rule)
        found = explainer(x, torch.zeros(len(x), dtype=torch.int64))[1]
        assert_close(found, torch.tensor(relevance), SHIFT if rule == "deeplift-revealcancel" else FLOAT64)


def attention(x: Tensor) -> Tensor:
    """Two products of matrices that depend on the input."""
    q, k, v = x[:, :, :3], x[:, :, 3:6], x[:, :, 2:5]
    return ((q @ k.transpose(1, 2)).sigmoid() @ v).flatten(1)


def windows(x: Tensor) -> Tensor:
    """As in Swin: the batch is multiplied into the number of windows, and back."""
    n, h, w = x.shape
    tiles = x.reshape(n, h // 2, 2, w).permute(0, 1, 3, 2).reshape(n * (h // 2), w, 2)
    return (tiles * torch.softmax(torch.arange(2.0, dtype=x.dtype), 0)).relu().sum(2).reshape(n, h // 2 * w)


def class_token(x: Tensor) -> Tensor:
    """As in ViT: a constant is expanded to the batch."""
    token = torch.full((x.shape[0], 1, x.shape[2]), 0.3, dtype=x.dtype)
    return (torch.cat([token, x], 1).tanh() * 2.0)[:, :2].flatten(1)


# (function of (N, 4, 6), also defined for RevealCancel)
FUNCTIONS: dict[str, tuple[Callable[[Tensor], Tensor], bool]] = {
    "product": (lambda x: x[:, 0] * x[:, 1].tanh(), True),
    "square": (lambda x: (x * x).sum(2), True),
    "broadcast product": (lambda x: (x * x.mean(2, keepdim=True).sigmoid()).flatten(1), True),
    "quotient": (lambda x: x[:, 0] / (x[:, 1].sigmoid() + 0.5), True),
    "reciprocal": (lambda x: 2.0 / (x[:, 0].exp() + 1.0), True),
    "constant over": (lambda x: torch.arange(1.0, 7.0, dtype=x.dtype) / (x[:, 0].exp() + 1.0), True),
    "difference": (lambda x: 2.0 - (x[:, 0] - 3.0 * x[:, 1]).relu() / -4.0, True),
    "scaled by signs": (lambda x: (x * torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0, 0.0], dtype=x.dtype)).sum(1), True),
    "amax": (lambda x: x.amax(1), True),
    "amin": (lambda x: x.amin((1,), keepdim=True).flatten(1), True),
    "maximum": (lambda x: torch.maximum(x[:, 0], x[:, 1]), True),
    "minimum": (lambda x: torch.minimum(x[:, 0], x[:, 1].relu()), True),
    "maximum of a constant": (lambda x: torch.maximum(x[:, 0], torch.full((6,), 0.2, dtype=x.dtype)), True),
    "padding": (lambda x: nn.functional.pad(x, (1, 1), value=0.7).sigmoid().flatten(1) * 2, True),
    "smooth": (lambda x: nn.functional.gelu(nn.functional.silu(x)).flatten(1), True),
    "attention": (attention, False),
    "windows": (windows, True),
    "class token": (class_token, True),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("reference", ["sample", "input"])
def test_every_operator_is_complete(name: str, reference: str) -> None:
    function, reveals = FUNCTIONS[name]
    x, x0, target = randn(3, 4, 6, seed=1), randn(3, 4, 6, seed=2), torch.tensor([0, 2, 1])
    x0 = x0 if reference == "input" else x0[:1]
    rows = torch.arange(3)
    expected = function(x)[rows, target] - function(x0.expand_as(x))[rows, target]
    given, arguments = ("input", (x0,)) if reference == "input" else (x0[0], ())
    explainer = relcompile.compile(Function(function), x, rule="deeplift-rescale", reference=given)
    assert_conserved(explainer(x, target, *arguments)[1], expected, FLOAT64)
    if reveals:  # every unit whose contributions are near 0 moves them by 1e-7
        explainer = relcompile.compile(Function(function), x, rule="deeplift-revealcancel", reference=given)
        missing = explainer(x, target, *arguments)[1].sum((1, 2)) - expected
        assert float(missing.abs().max()) <= 1e-7 * x[0].numel()


def captum_nets() -> dict[str, nn.Module]:
    """No ReLU beside a max pool: captum's hooks overwrite each other there (its maps then do not add up)."""
    torch.manual_seed(0)
    return {
        "dense": nn.Sequential(nn.Flatten(), nn.Linear(128, 9), nn.ReLU(), nn.Linear(9, 7), nn.Tanh(), nn.Linear(7, 4)),
        "convolutions": nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, stride=2), nn.ELU(), nn.AvgPool2d(3),
            nn.Flatten(), nn.Linear(4, 4),
        ),
        "max pool": nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2), nn.Sigmoid(), nn.Flatten(), nn.Linear(16, 4)
        ),
        "batch norm": nn.Sequential(
            nn.BatchNorm2d(2), nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(), nn.Flatten(), nn.Linear(144, 4)
        ),
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", captum_nets())
def test_rescale_equals_captum(name: str) -> None:
    model = captum_nets()[name].double().eval()
    x, reference, target = randn(3, 2, 8, 8, seed=1), randn(3, 2, 8, 8, seed=2), torch.tensor([0, 3, 1])
    expected = DeepLift(model).attribute(x.clone(), reference, target=target).detach()
    explainer = relcompile.compile(model, x, rule="deeplift-rescale", reference="input")
    assert_close(explainer(x, target, reference)[1], expected, FLOAT64)


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5))


IMAGES = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("reference", [0, 0.25, (0.5, -0.5), IMAGES[1], IMAGES[1:]], ids=str)
def test_forms_of_a_constant(reference: Any) -> None:
    as_tensor = {float: lambda r: r, int: lambda r: r, tuple: lambda r: torch.tensor(r).reshape(1, 2, 1, 1)}
    full = as_tensor.get(type(reference), lambda r: r)(reference) + torch.zeros(1, 2, 6, 6)
    target = torch.tensor([0, 3])
    found = relcompile.compile(small(), IMAGES, rule="deeplift-rescale", reference=reference)(IMAGES, target)[1]
    by_input = relcompile.compile(small(), IMAGES, rule="deeplift-rescale", reference="input")
    assert_close(found, by_input(IMAGES, target, full.expand_as(IMAGES).contiguous())[1], 1e-6)


def test_a_number_is_as_exact_as_the_model() -> None:
    model, x, target = small().double(), IMAGES.double(), torch.tensor([0, 3])
    change = (model(x) - model(torch.full_like(x, 0.3)))[torch.arange(2), target].detach()
    relevance = relcompile.compile(model, x, rule="deeplift-rescale", reference=0.3)(x, target)[1]
    assert_close(relevance.sum((1, 2, 3)), change, FLOAT64)


def test_seed_is_a_multiplier() -> None:
    one_hot = nn.functional.one_hot(torch.tensor([0, 3]), 5).float()
    by_seed = relcompile.compile(small(), IMAGES, rule="deeplift-rescale", target="seed")(IMAGES, one_hot)[1]
    by_index = relcompile.compile(small(), IMAGES, rule="deeplift-rescale")(IMAGES, torch.tensor([0, 3]))[1]
    assert_close(by_seed, by_index, 1e-6)


def test_nothing_is_absorbed() -> None:
    explainer = relcompile.compile(small().double(), IMAGES.double(), rule="deeplift-rescale", absorbed=True)
    assert float(explainer(IMAGES.double(), torch.tensor([0, 3]))[2].abs().max()) < 1e-12


def test_several_inputs_share_a_number(tmp_path) -> None:
    class Two(nn.Module):
        def forward(self, left: Tensor, right: Tensor) -> Tensor:
            return (left * right).relu() + right

    left, right = randn(3, 4, seed=1).float(), randn(3, 4, seed=2).float()
    explainer = relcompile.compile(Two(), [left, right], rule="deeplift-rescale", reference=0.5)
    target = torch.tensor([0, 1, 2])
    output, of_left, of_right = explainer(left, right, target)
    expected = output[torch.arange(3), target] - 0.75
    assert_conserved(of_left + of_right, expected, 1e-5)
    only = relcompile.compile(Two(), [left, right], rule="deeplift-rescale", reference="input", explain=["left"])
    moved = only(left, right, target, torch.full_like(left, 0.5))[1]
    assert_conserved(moved, ((left * right).relu() - (0.5 * right).relu())[torch.arange(3), target], 1e-5)
    explainer.save(tmp_path / "two.onnx")
    found = relcompile.load(tmp_path / "two.onnx", device="cpu").explain(left.numpy(), right.numpy(), target=[0, 1, 2])
    assert_close(found.relevances["relevance_left"], of_left, ONNX)


def test_runtime_asks_for_its_reference(tmp_path) -> None:
    explainers = {kind: relcompile.compile(small(), IMAGES, rule="deeplift-rescale", reference=kind)
                  for kind in (0, "input")}  # fmt: skip
    for kind, explainer in explainers.items():
        save(explainer, tmp_path / f"{kind}.onnx")
    fixed, free = (relcompile.load(tmp_path / f"{kind}.onnx", device="cpu") for kind in explainers)
    assert (fixed.metadata.reference, free.metadata.reference) == ("0", "input")
    x, zero = IMAGES.numpy(), torch.zeros(2, 2, 6, 6).numpy()
    assert_close(fixed.explain(x, target=1).relevance, free.explain(x, target=1, reference=zero).relevance, ONNX)
    with pytest.raises(InputSpecError, match="needs reference"):
        free.explain(x, target=1)
    with pytest.raises(InputSpecError, match=r"reference wants float32"):
        free.explain(x, target=1, reference=zero[:1])
    with pytest.raises(InputSpecError, match="takes none"):
        fixed.explain(x, target=1, reference=zero)


def masked(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, -x).flatten(1)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a rule without differences": ({"rule": "z+", "reference": 0}, CompositeError, "z\\+ takes no differences"),
    "a rule that knows no reference": (
        {"rule": deeplift_rescale().with_entries(Entry(Epsilon(), kind="affine"))},
        UnsupportedRuleError,
        "know no reference",
    ),
    "a mask that depends on the input": ({"model": Function(masked)}, UnsupportedOperatorError, "choose by the input"),
    "an operator without a rule": (
        {"model": Function(lambda x: attention(x[:, 0])), "rule": "deeplift-revealcancel"},
        UnsupportedRuleError,
        "matrix products",
    ),
    "other channels": ({"reference": (0.1, 0.2, 0.3)}, InputSpecError, "3 channels"),
    "another shape": ({"reference": torch.zeros(2, 5, 5)}, InputSpecError, r"\[2, 5, 5\]"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_defined_is_refused(name: str) -> None:
    given, error, message = REFUSED[name]
    arguments: dict[str, Any] = {"model": small(), "rule": "deeplift-rescale", **given}
    with pytest.raises(error, match=message):
        relcompile.compile(arguments.pop("model"), IMAGES, **arguments)


@pytest.mark.parametrize(
    ("text", "expected"), [("0", 0.0), ("-1.5", -1.5), ("0.1,0.2", (0.1, 0.2)), ("input", "input")]
)
def test_references_are_read(text: str, expected: Any) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize("text", ["zero", "0.1,b", "missing.npy", "", "nan", "0,inf"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputSpecError, match="reference"):
        parse_reference(text)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04"], ids=["empty", "cut off", "another format"])
def test_damaged_references_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "reference.npy").write_bytes(content)
    with pytest.raises(InputSpecError, match="cannot be read"):
        parse_reference(str(tmp_path / "reference.npy"))
