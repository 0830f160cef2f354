"""Estimated patterns equal the oracle's, whatever the layer and however the data comes in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import relcompile
from passes.pipelines import CANONICALIZE
from passes.runner import run_passes
from passes.stages import verify_captured
from passes.views.affine_layers import affine_layers
from relcompile.errors import CalibrationError
from relcompile.frontend.capture import capture, forward_parameters
from tests.compare import FLOAT64, assert_close
from tests.oracles import estimators

# name -> (layer, shape of one sample)
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 4), (5,)),
    "linear without bias": (lambda: nn.Linear(5, 4, bias=False), (5,)),
    "linear on tokens": (lambda: nn.Linear(5, 4), (3, 5)),
    "convolution": (lambda: nn.Conv2d(2, 4, 3), (2, 6, 5)),
    "stride, padding": (lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 2)), (2, 7, 5)),
    "dilation, groups": (lambda: nn.Conv2d(4, 6, 3, dilation=2, groups=2, padding=1), (4, 7, 7)),
    "depthwise": (lambda: nn.Conv2d(3, 6, 3, groups=3, padding=1), (3, 5, 5)),
    "one axis": (lambda: nn.Conv1d(2, 3, 3, stride=2, padding=1), (2, 9)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 4, 4)),
    "transposed, groups": (lambda: nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), (4, 3, 3)),
}


def samples(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) + 0.5


def network(layer: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(layer, nn.ReLU()).double().eval()


def unfolded(x: Tensor, layer: Any, group: int) -> tuple[Tensor, Tensor]:
    """Rows (M, J) that the neurons of one group read, padding as zeros, and their weights (K, J)."""
    if isinstance(layer, nn.Linear):
        return x.flatten(0, -2), layer.weight.detach()
    assert isinstance(layer, nn.modules.conv._ConvNd)
    weight, channels = layer.weight.detach(), layer.in_channels // layer.groups
    neurons = layer.out_channels // layer.groups
    settings: dict[str, Any]
    x = x[:, group * channels : (group + 1) * channels]
    if isinstance(layer, nn.Conv1d):
        x, weight = x[:, :, None], weight[:, :, None]
        settings = {"stride": (1, *layer.stride), "padding": (0, *layer.padding)}
    elif isinstance(layer, nn.ConvTranspose2d):  # a convolution of the input with zeros in between
        weight = weight[group * channels : (group + 1) * channels].flip(2, 3).transpose(0, 1)
        x, settings = spread(x, layer), {}
    else:
        settings = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    rows = functional.unfold(x, weight.shape[2:], **settings).transpose(1, 2).flatten(0, 1)
    if not isinstance(layer, nn.ConvTranspose2d):
        weight = weight[group * neurons : (group + 1) * neurons]
    return rows, weight.flatten(1)


def spread(x: Tensor, layer: Any) -> Tensor:
    (step, _), (kernel, _), (padding, _) = layer.stride, layer.kernel_size, layer.padding
    n, channels, height, width = x.shape
    wide = torch.zeros(n, channels, (height - 1) * step + 1, (width - 1) * step + 1, dtype=x.dtype)
    wide[:, :, ::step, ::step] = x
    before, after = kernel - 1 - padding, kernel - 1 - padding + layer.output_padding[0]
    return functional.pad(wide, (before, after, before, after))


def oracle(layer: nn.Module, x: Tensor, estimator: str) -> Tensor:
    """The pattern in the layout of the layer's weight."""
    groups = getattr(layer, "groups", 1)
    with torch.no_grad():
        z = layer(x)
    active = (z > 0) if isinstance(layer, nn.Linear) else (z > 0).movedim(1, -1)
    parts = []
    for group, mask in enumerate(active.flatten(0, -2).chunk(groups, 1)):
        rows, weight = unfolded(x, layer, group)
        parts.append(
            estimators.relu_pattern(rows, weight, mask)
            if estimator == "relu"
            else estimators.linear_pattern(rows, weight)
        )
    if not isinstance(layer, nn.ConvTranspose2d):
        return torch.cat(parts).reshape(layer.get_parameter("weight").shape)
    neurons, channels = layer.out_channels // groups, layer.in_channels // groups
    shaped = [part.reshape(neurons, channels, *layer.kernel_size) for part in parts]
    return torch.cat([part.flip(2, 3).transpose(0, 1) for part in shaped])


@pytest.mark.parametrize("estimator", ["relu", "linear"])
@pytest.mark.parametrize("name", LAYERS)
def test_pattern_equals_the_oracle(name: str, estimator: Any) -> None:
    build, shape = LAYERS[name]
    layer = build()
    model, x = network(layer), samples(12, *shape)
    calibration = relcompile.calibrate(model, [x[:5], x[5:]], estimator=estimator)
    assert calibration.samples == 12
    assert_close(calibration.patterns["0"], oracle(layer, x, estimator), FLOAT64)


@pytest.mark.parametrize("sizes", [[12], [1] * 12, [5, 7]])
def test_batches_do_not_matter(sizes: list[int]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()
    x = samples(12, 2, 6, 6)
    whole, parts = (relcompile.calibrate(model, x.split(split)).patterns for split in (12, sizes))
    for name, pattern in whole.items():
        assert_close(parts[name], pattern, FLOAT64)


def test_far_from_zero_nothing_cancels() -> None:
    """A mean of a thousand standard deviations in float32, whose rounding is then 1e-4 of them."""
    torch.manual_seed(0)
    layer = nn.Linear(4, 3)
    x = (samples(400, 4) + 1000.0).float()
    model = nn.Sequential(layer, nn.ReLU())
    found = relcompile.calibrate(model, x.split(50), estimator="linear").patterns["0"]
    expected = estimators.linear_pattern(x.double(), layer.weight.detach().double())
    assert_close(found, expected, 1e-3)


def test_haufe_example() -> None:
    """x = y (1, 0) + noise (1, 1): w = (1, -1) reads y, the signal lies along (1, 0)."""
    count = 20_000
    y, noise = samples(count, seed=1) - 0.5, samples(count, seed=2) - 0.5
    model = nn.Linear(2, 1, bias=False).double()
    model.weight.data = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
    pattern = relcompile.calibrate(model, torch.stack([y + noise, noise], 1).split(1000)).patterns
    error = next(iter(pattern.values())) - torch.tensor([[1.0, 0.0]])
    assert error.abs().max() < 4 / count**0.5  # four standard errors of a correlation


@pytest.mark.parametrize("name", LAYERS)
def test_a_pattern_and_its_weight_make_one(name: str) -> None:
    build, shape = LAYERS[name]
    layer = build()
    calibration = relcompile.calibrate(network(layer), [samples(12, *shape)])
    share = calibration.patterns["0"] * layer.get_parameter("weight").detach()
    assert_close(share.sum(), torch.tensor(float(getattr(layer, "out_channels", 4))), FLOAT64)


def test_constant_and_dead_neurons_have_no_pattern() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.data = torch.tensor([-1e9, 1e9])
    model, x = network(layer), samples(10, 3)
    assert relcompile.calibrate(model, [x]).patterns["0"][0].tolist() == [0, 0, 0]
    constant = torch.full((10, 3), 0.1, dtype=torch.float64)
    assert relcompile.calibrate(model, [constant]).patterns["0"].tolist() == [[0, 0, 0], [0, 0, 0]]


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.main, self.skip = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.main(x.flip(-1)) + self.skip(x) + 1.0).relu()


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).relu())


# model, input, (layer, ReLU behind it) in order
RELUS: dict[str, tuple[nn.Module, tuple[int, ...], list[tuple[str, str | None]]]] = {
    "batch norm": (nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU()), (2, 4, 4), [("0", "relu")]),
    "residual": (Residual(), (2, 4, 4), [("main", "relu"), ("skip", "relu")]),
    "reshaped": (nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten(), nn.ReLU()), (2, 4, 4), [("0", "relu")]),
    "clamped": (nn.Sequential(nn.Linear(3, 3), nn.ReLU6()), (3,), [("0", "hardtanh")]),
    "pooled": (nn.Sequential(nn.Conv2d(2, 3, 1), nn.MaxPool2d(2), nn.ReLU()), (2, 4, 4), [("0", None)]),
    "smooth": (nn.Sequential(nn.Linear(3, 3), nn.GELU()), (3,), [("0", None)]),
    "last": (nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)), (3,), [("0", "relu"), ("2", None)]),
}


@pytest.mark.parametrize("name", RELUS)
def test_the_relu_behind_a_layer_is_found(name: str) -> None:
    model, shape, expected = RELUS[name]
    module = capture(model, {forward_parameters(model)[0]: torch.randn(2, *shape)}).module
    run_passes(module, CANONICALIZE, keeps=verify_captured)
    found = [(layer.name, layer.relu.name if layer.relu else None) for layer in affine_layers(module)]
    assert found == expected


def test_batch_norm_is_part_of_the_layer() -> None:
    """The pattern fits the merged weight, and the mask is that of the ReLU behind the batch norm."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)
    for values in (norm.weight, norm.bias, norm.get_buffer("running_mean")):
        nn.init.normal_(values)
    model, x = nn.Sequential(conv, norm, nn.ReLU()).double().eval(), samples(6, 2, 5, 5)
    scale = (norm.weight / (norm.get_buffer("running_var") + norm.eps).sqrt()).detach()
    merged = conv.weight.detach() * scale[:, None, None, None]
    active = estimators.rows_of(model(x)) > 0
    rows = estimators.patches(x, (3, 3), (1, 1), (0, 0))
    expected = estimators.relu_pattern(rows, merged.flatten(1), active).reshape(merged.shape)
    assert_close(relcompile.calibrate(model, [x]).patterns["0"], expected, FLOAT64)


def test_several_inputs() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Linear(4, 2)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.left(a) + self.right(b)

    model, a, b = Two().double(), samples(9, 3, seed=1), samples(9, 4, seed=2)
    patterns = relcompile.calibrate(model, [{"b": b, "a": a}]).patterns
    assert_close(patterns["left"], estimators.linear_pattern(a, model.left.weight.detach()), FLOAT64)
    assert_close(patterns["right"], estimators.linear_pattern(b, model.right.weight.detach()), FLOAT64)


BAD: dict[str, tuple[Callable[[], object], str]] = {
    "no data": (lambda: relcompile.calibrate(nn.Linear(3, 2), []), "no data"),
    "reused layer": (lambda: relcompile.calibrate(Reused(), [torch.randn(4, 3)]), "share one"),
    "infinite data": (lambda: relcompile.calibrate(nn.Linear(3, 2), [torch.full((4, 3), torch.inf)]), "not finite"),
    "other shape": (
        lambda: relcompile.calibrate(nn.Linear(3, 2), [torch.randn(4, 3), torch.randn(4, 5)]),
        r"data of shape \(4, 5\)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_refused(name: str) -> None:
    attempt, message = BAD[name]
    with pytest.raises(CalibrationError, match=message):
        attempt()
