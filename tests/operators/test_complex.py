"""Complex numbers and Fourier transforms: the gradient is autograd's, and how they are written does not matter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fft, nn
from torch.nn import functional as F  # noqa: N812

import relcompile
from passes.errors import UnknownLayerError, UnsupportedOperatorError
from relcompile.backend.onnx_file import lowered
from tests.compare import FLOAT64, ONNX, assert_close, assert_conserved
from tests.oracles.nets import Function

Spelling = Callable[[Tensor], Tensor]
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(3, 8, 6, generator=GENERATOR, dtype=torch.float64)
FILTER, MIXER, ROWS = (
    torch.randn(*shape, generator=GENERATOR, dtype=torch.complex128) for shape in ((8, 4), (8, 8, 4), (5, 6))
)
ANGLES = torch.randn(8, 3, generator=GENERATOR, dtype=torch.float64)
WINDOW = torch.hann_window(16, dtype=torch.float64)
pairs = torch.view_as_real


def like(x: Tensor, constant: Tensor) -> Tensor:
    """The complex constant in the precision of x."""
    return constant.to(torch.complex64 if x.dtype == torch.float32 else torch.complex128)


def spectral_convolution(x: Tensor) -> Tensor:
    """A layer of a Fourier neural operator: learned weights for the lowest frequencies, zeros for the others."""
    low = torch.zeros(x.shape[0], 8, 4, dtype=like(x, MIXER).dtype)
    low[:, :, :2] = torch.einsum("bim,iom->bom", fft.rfft(x)[:, :, :2], like(x, MIXER)[:, :, :2])
    return fft.irfft(low, n=6)


def spectrogram(x: Tensor) -> Tensor:
    return torch.stft(x.flatten(1), 16, 4, window=WINDOW.to(x), return_complex=True)


def rotated(x: Tensor) -> Tensor:
    """Rotary positions as Llama 4 writes them."""
    turns = torch.polar(torch.ones_like(ANGLES), ANGLES).to(like(x, FILTER).dtype)
    return pairs(torch.view_as_complex(x.reshape(-1, 8, 3, 2)) * turns).flatten(2)


def cosine_transform(x: Tensor) -> Tensor:
    turns = torch.exp(-1j * torch.arange(6, dtype=torch.float64) * torch.pi / 12)
    return (fft.fft(torch.cat([x, x.flip(-1)], -1))[..., :6] * like(x, turns)).real


TRANSFORMS: dict[str, Spelling] = {
    "rfft": lambda x: pairs(fft.rfft(x, dim=1, norm="ortho")),
    "rfft of a part": lambda x: pairs(fft.rfft(x, n=5, dim=1)),
    "rfft, padded to an odd size": lambda x: pairs(fft.rfft(x, n=9)),
    "rfft2": lambda x: pairs(fft.rfft2(x)),
    "irfft": lambda x: fft.irfft(fft.rfft(x) * 2, n=6),
    "irfft, odd": lambda x: fft.irfft(fft.rfft(x) * 2j, n=7, norm="forward"),
    "irfft along another axis": lambda x: fft.irfft(fft.fft(x, dim=1) * 1j, dim=1),
    "fft": lambda x: pairs(fft.fft(torch.complex(x, x.cos()))),
    "fft2": lambda x: fft.fft2(x).real,
    "ifft": lambda x: fft.ifft(x).imag,
    "ifft2": lambda x: fft.ifft2(x * (1 + 2j), norm="forward").imag,
    "fftn": lambda x: fft.fftn(x, dim=(1, 2)).imag,
    "hfft": lambda x: fft.hfft(fft.rfft(x)),
    "ihfft": lambda x: fft.ihfft(x).abs(),
    "fftshift": lambda x: fft.fftshift(fft.fft(x), dim=(1, 2)).abs(),
    "global filter": lambda x: fft.irfft2(fft.rfft2(x, norm="ortho") * like(x, FILTER), s=(8, 6), norm="ortho"),
    "spectral convolution": spectral_convolution,
    "long convolution": lambda x: fft.irfft(fft.rfft(x, n=12) * fft.rfft(x.flip(1), n=12), n=12),
    "stft": lambda x: spectrogram(x).abs(),
    "istft": lambda x: torch.istft(spectrogram(x) * 2, 16, 4, window=WINDOW.to(x)),
    "cosine transform": cosine_transform,
    "cepstrum": lambda x: fft.ifft((fft.fft(x).abs() + 1).log()).real,
}
NUMBERS: dict[str, Spelling] = {
    "abs": lambda x: torch.complex(x, x * 2).conj().abs(),
    "abs, at 0": lambda x: torch.complex(x.relu(), x.relu()).abs(),
    "power": lambda x: fft.rfft(x).abs() ** 2,
    "angle": lambda x: torch.complex(x, x.cos()).angle(),
    "angle, at 0": lambda x: torch.complex(x.relu(), x.relu() * 2 * x).angle(),
    "direction": lambda x: pairs(torch.sgn(torch.complex(x, x.cos()))),
    "polar": lambda x: pairs(torch.polar(x * x, x.cos()) * torch.polar(x.exp(), x)),
    "rotary positions": rotated,
    "product with its conjugate": lambda x: (fft.fft(x) * fft.fft(x).conj()).real,
    "quotient": lambda x: (fft.fft(x) / (fft.fft(x * 2) + 30)).real,
    "quotient by a real number": lambda x: (fft.fft(x) / (x * x + 1)).real,
    "reciprocal": lambda x: pairs(1 / (fft.fft(x) + 30)),
    "exp": lambda x: torch.exp(1j * x).real,
    "log": lambda x: pairs(torch.complex(x * x + 1, x).log()),
    "whole power": lambda x: pairs(torch.complex(x, x.cos()) ** 3),
    "sum with a real value": lambda x: pairs(fft.rfft(x)[:, 0:1] + x[:, :, :4]),
    "difference": lambda x: pairs(torch.sub(fft.rfft(x), x[:, :, :4] * 1j, alpha=2)),
    "concatenation with a real value": lambda x: torch.cat([fft.rfft(x), x.to(like(x, ROWS).dtype)], 2).abs(),
    "choice": lambda x: pairs(torch.where(x > 0, fft.fft(x), x * 1j)),
    "part": lambda x: pairs(fft.fft(x).chunk(2, 1)[1]),
    "sum": lambda x: pairs(fft.fft(x).sum(1)),
    "mean": lambda x: pairs(fft.fft(x).mean(1, keepdim=True)),
    "padding": lambda x: F.pad(fft.fft(x), (1, 2)).abs(),
    "product of matrices": lambda x: (fft.fft(x).transpose(1, 2) @ fft.fft(x * x)).abs(),
    "matrix on the right": lambda x: (fft.fft(x).transpose(1, 2) @ like(x, FILTER)).abs(),
    "linear layer": lambda x: F.linear(fft.fft(x), like(x, ROWS), like(x, ROWS[:, 0])).abs(),
    "modReLU": lambda x: pairs(torch.relu(fft.fft(x).abs() - 0.5) * torch.sgn(fft.fft(x))),
}
CASES = {**TRANSFORMS, **NUMBERS}


def score(function: Spelling, x: Tensor) -> Tensor:
    """One number a sample, in which every element of the result counts differently."""
    y = function(x).flatten(1)
    return (y * torch.linspace(-1, 2, y.shape[1], dtype=x.dtype).sin()).sum(1, keepdim=True)


def autograd(model: Spelling) -> Tensor:
    leaf = X.clone().requires_grad_()
    return torch.autograd.grad(model(leaf).sum(), leaf)[0]


@pytest.mark.sampled(16)
@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_autograds(name: str) -> None:
    model = Function(lambda x: score(CASES[name], x))
    explainer = relcompile.compile(model, X[:2], rule="gradient", target=0)
    for module in (explainer, lowered(explainer.graph_module)):
        output, found = module(X)
        assert_close(output, model(X), FLOAT64)
        assert_close(found, autograd(model), FLOAT64)


@pytest.mark.sampled(25)
@pytest.mark.parametrize("start", range(25))
def test_onnx_runtime_has_the_same(start: int, tmp_path: Path) -> None:
    chosen = list(CASES.values())[start::25]
    model = Function(lambda x: torch.cat([score(function, x) for function in chosen], 1).sum(1, keepdim=True))
    relcompile.compile(model, X.float(), rule="gradient", target=0).save(tmp_path / "x.onnx")
    found = relcompile.load(tmp_path / "x.onnx").explain(X.float().numpy())
    assert_close(found.relevance, autograd(model), ONNX)


def waves(n: int) -> Tensor:
    """exp(-2πi t k / n)."""
    return fft.fft(torch.eye(n, dtype=torch.float64))


WAVES, TOKEN_WAVES = waves(6), waves(8)


def transformed_by_matrix(x: Tensor) -> Tensor:
    return torch.stack([x @ WAVES.real[:, :4], x @ WAVES.imag[:, :4]], -1)


def transformed_back_by_matrix(x: Tensor) -> Tensor:
    counts = torch.tensor([1.0, 2, 2, 1], dtype=torch.float64)[:, None] / 6
    parts = torch.cat([x @ WAVES.real[:, :4], x @ WAVES.imag[:, :4]], -1)
    return parts @ torch.cat([WAVES.real[:4] * counts, WAVES.imag[:4] * counts])


def mixed_by_matrices(x: Tensor) -> Tensor:
    """FNet's mixing of tokens and features."""
    parts = torch.cat([(x @ part).mT for part in (WAVES.real, WAVES.imag)], -1)
    return (parts @ torch.cat([TOKEN_WAVES.real, -TOKEN_WAVES.imag])).mT


def rotated_by_hand(x: Tensor) -> Tensor:
    a, b, cos, sin = x[..., 0::2], x[..., 1::2], ANGLES.cos(), ANGLES.sin()
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(2)


TWINS: dict[str, tuple[Spelling, Spelling]] = {
    "transform": (lambda x: pairs(fft.rfft(x)), transformed_by_matrix),
    "transform back": (lambda x: fft.irfft(fft.rfft(x), n=6), transformed_back_by_matrix),
    "mixing": (lambda x: fft.fft(fft.fft(x, dim=-1), dim=-2).real, mixed_by_matrices),
    "mixing, both axes at once": (lambda x: fft.fftn(x, dim=(1, 2)).real, mixed_by_matrices),
    "rotation": (rotated, rotated_by_hand),
    "magnitude": (lambda x: torch.complex(x, x.cos()).abs(), lambda x: torch.hypot(x, x.cos())),
}


@pytest.mark.sampled(12)
@pytest.mark.parametrize("rule", ["z+", "epsilon", "gamma", "attnlrp"])
@pytest.mark.parametrize("name", TWINS)
def test_twins(name: str, rule: str) -> None:
    found = [
        relcompile.compile(Function(lambda x, f=f: score(f, x.tanh()).relu()), X, rule=rule, target=0)(X)[1]
        for f in TWINS[name]
    ]
    assert_close(found[0], found[1], FLOAT64)


def test_a_transform_conserves_as_a_layer_without_a_bias_does() -> None:
    model = Function(lambda x: score(CASES["global filter"], x))
    output, relevance = relcompile.compile(model, X, rule="lrp-0", target=0)(X)
    assert_conserved(relevance, output[:, 0], FLOAT64)


class Transform(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return fft.rfft(x)


class Spectrum(nn.Module):
    """A layer whose output is complex, and what is made of it."""

    def __init__(self) -> None:
        super().__init__()
        self.transform = Transform()

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(x).abs().sum(1)


@pytest.mark.parametrize("place", ["at", "start"])
def test_no_relevance_is_read_of_complex_numbers(place: str) -> None:
    named: Any = {place: "transform"}
    with pytest.raises(UnknownLayerError, match=r"layer 'transform' is complex.*\n  transform \(_fft_r2c, "):
        relcompile.compile(Spectrum(), X, rule="gradient", target=0, **named)


def test_a_layer_may_pass_its_transform_by_the_adjoint() -> None:
    found, expected = (
        relcompile.compile(Spectrum(), X, rule=rule, layers=layers, target=0)(X)[1]
        for rule, layers in (("z+", ["transform=adjoint"]), ("lrp-0", []))
    )
    assert_close(found, expected, FLOAT64)


REFUSED: dict[str, tuple[Spelling, Tensor]] = {
    "a function that is not known": (lambda x: fft.fft(x).tanh().real.flatten(1), X),
    "an axis too long for a matrix": (lambda x: fft.rfft(x).real, torch.ones(2, 8194)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_says_what_is_known(name: str) -> None:
    function, x = REFUSED[name]
    with pytest.raises(UnsupportedOperatorError, match=r"of complex numbers only sums, .* at most 8192 numbers"):
        relcompile.compile(Function(function), x, rule="gradient", target=0)
