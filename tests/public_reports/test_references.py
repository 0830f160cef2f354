"""References that were refused or crashed: beside unexplained inputs, one for each, a background, a runtime one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from captum.attr import DeepLiftShap, IntegratedGradients
from torch import Tensor, nn

import relcompile
from relcompile.errors import CompositeError, InputSpecError
from tests.compare import FLOAT32, FLOAT64, ONNX, assert_close

Join = Callable[[Tensor, Tensor], Tensor]
JOINS: dict[str, Join] = {
    "concatenated": lambda a, b: torch.cat([a, b], 1),
    "stacked": lambda a, b: torch.stack([a, b], 1).relu(),
    "multiplied": lambda a, b: a * b,
    "added": lambda a, b: (b - a).sigmoid(),
    "chosen by": lambda a, b: torch.where(b > 0, a, b),
    "the larger": torch.maximum,
    "sized by": lambda a, b: a.reshape(b.shape[0], 2, 2),
}
X = torch.rand(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
IDS = torch.tensor([0, 3, 4])


class Net(nn.Module):
    """Features and an embedding, joined, under one more layer."""

    def __init__(self, join: Join) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.features, self.join = nn.Embedding(5, 4), nn.Linear(3, 4), join
        width = self.joined(torch.rand(2, 3), torch.tensor([1, 2])).shape[1]
        self.scores = nn.Linear(width, 2)
        self.double()

    def joined(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.join(torch.tanh(self.features(x)), self.embedding(ids)).flatten(1)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.scores(self.joined(x, ids))


@pytest.mark.parametrize("join", JOINS)
def test_a_constant_reference_beside_an_unexplained_input(join: str) -> None:
    model, x0 = Net(JOINS[join]), torch.tensor([[0.2, -0.1, 0.4]], dtype=torch.float64)
    found = relcompile.compile(model, (X, IDS), rule="deeplift-rescale", reference=x0, target=1)(X, IDS)[1]
    change = (model(X, IDS) - model(x0.expand_as(X), IDS))[:, 1].detach()
    assert_close(found.sum(1), change, FLOAT64)


class Two(nn.Module):
    """Two explained inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.a, self.b, self.scores = nn.Linear(3, 4), nn.Linear(2, 4), nn.Linear(4, 2)
        self.double()

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return self.scores(torch.tanh(self.a(x)) * torch.sigmoid(self.b(z)))


def test_a_reference_for_each_input() -> None:
    model, z = Two(), torch.rand(3, 2, dtype=torch.float64)
    references = {"z": 0.5, "x": torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64)}
    explainer = relcompile.compile(model, (X, z), rule="deeplift-rescale", reference=references, target=0)
    _, of_x, of_z = explainer(X, z)
    at_references = model(references["x"][None], torch.full((1, 2), 0.5, dtype=torch.float64))  # type: ignore[index]
    assert_close(of_x.sum(1) + of_z.sum(1), (model(X, z) - at_references)[:, 0].detach(), FLOAT64)
    assert explainer.metadata.reference == "z: 0.5, x: tensor"


class Plain(nn.Sequential):
    """What captum's hooks understand."""

    def __init__(self) -> None:
        torch.manual_seed(4)
        super().__init__(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
        self.double()


BACKGROUND = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.filterwarnings("ignore")  # captum's advice on hooks
def test_a_background_is_captums_deeplift_shap() -> None:
    model = Plain()
    found = relcompile.compile(model, X, rule="deeplift-rescale", reference=BACKGROUND, target=1)(X)[1]
    assert_close(found, DeepLiftShap(model).attribute(X, BACKGROUND, target=1).detach(), FLOAT64)
    change = model(X)[:, 1] - model(BACKGROUND)[:, 1].mean()
    assert_close(found.sum(1), change.detach(), FLOAT64)


@pytest.mark.parametrize(
    "reference", [BACKGROUND[0], BACKGROUND[:1], 0.5, (0.1,) * 3], ids=["sample", "row", "0.5", "3"]
)
def test_baselines_of_integrated_gradients(reference: Tensor | float | tuple[float, ...]) -> None:
    model = Plain()
    baseline = torch.as_tensor(reference, dtype=torch.float64).reshape(1, -1).expand(1, 3)
    found = relcompile.compile(model, X, rule="integrated-gradients=8", reference=reference, target=1)(X)[1]
    wanted = IntegratedGradients(model).attribute(X, baseline, target=1, n_steps=8, method="riemann_middle")
    assert_close(found, wanted.detach(), FLOAT64)


def test_a_runtime_baseline_of_integrated_gradients(tmp_path: Path) -> None:
    model, x, baselines = Plain().float(), X.float(), BACKGROUND[:3].float()
    explainer = relcompile.compile(model, x, rule="integrated-gradients=8", reference="input", target=1)
    wanted = IntegratedGradients(model).attribute(x, baselines, target=1, n_steps=8, method="riemann_middle")
    assert_close(explainer(x, baselines)[1], wanted.detach(), FLOAT32)
    explainer.save(tmp_path / "ig.onnx")
    production = relcompile.load(tmp_path / "ig.onnx", device="cpu")
    assert_close(production.explain(x.numpy(), reference=baselines.numpy()).relevance, wanted.detach(), ONNX)


@pytest.mark.parametrize(
    ("rule", "reference", "error", "message"),
    [
        ("integrated-gradients", BACKGROUND, CompositeError, "takes one reference, 4 were given"),
        ("gradient", 0.5, CompositeError, "integrated-gradients do"),
        ("deeplift-rescale", BACKGROUND[:, :2], InputSpecError, r"\[4, 2\], one sample is \[3\]"),
        ("deeplift-rescale", {"z": 0.5}, InputSpecError, "references of z, and the explained inputs are input"),
    ],
)
def test_what_fits_no_reference(rule: str, reference: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        relcompile.compile(Plain(), X, rule=rule, reference=reference)  # type: ignore[arg-type]
