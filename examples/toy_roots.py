"""Why the root matters: two pixels, one sigmoid each, and five ways to share f(x) - f(0) out.

f(x, y) = σ(x) + σ(y) stands in for the toy network of Zhang et al. 2024 (supplement, figure 1). Its formula is not
published; this one is RECONSTRUCTED from the properties that the text names: additively separable, a slope that
falls to the right, equal x f'(x) at two different x, the minimum of the domain at (0, 0), a true root only infinitely
far away.

    python examples/toy_roots.py [--output docs/images/toy_roots.png]
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot as plt
from torch import Tensor

import relcompile
from relcompile import Composite, Entry
from relcompile.rules import (
    ROOT,
    ActivationCall,
    Adjoint,
    BetweenZeroAndInput,
    Call,
    Descent,
    Form,
    Messages,
    Relevance,
    SquaredError,
    Value,
    learn_root,
)


class Toy(torch.nn.Module):
    """f(x, y) = σ(x) + σ(y), as one output of two inputs (N, 2)."""

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.sigmoid(pixels).sum(1, keepdim=True)


@dataclass(frozen=True)
class Tangent:
    """The tangent at the root x - s of an activation, followed up to x: g(s) = f'(x - s) s."""

    call: ActivationCall

    def apply(self, signal: Value, /) -> Value:
        return self.call.at(self.call.x - signal).derivative(signal)

    def pullback(self, signal: Value, cotangent: Value, /) -> Value:
        at_root = self.call.at(self.call.x - signal)
        return at_root.derivative(cotangent) - at_root.curvature() * signal * cotangent


@dataclass(frozen=True)
class LearnedTangent:
    """Relevance f'(x - s) s, with the root x - s searched for between 0 and x so that it adds up to f(x) - f(0)."""

    steps: int = 60
    step_size: float = 8.0
    applies_to: ClassVar[tuple[type[Call], ...]] = (ActivationCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def propagate(self, call: ActivationCall, arriving: Relevance, /) -> Messages:
        gained = arriving.relevance - call.at(call.x.zeros()).output
        search = Descent(SquaredError(), self.steps, self.step_size, constraint=BetweenZeroAndInput())
        root = learn_root(Tangent(call), call.x, gained, search)
        ROOT.note(call.node, root)
        return (Relevance(call.x, Tangent(call).apply(root.signal)),)


def logistic_slope(x: Tensor) -> Tensor:
    """σ'(x)."""
    return torch.sigmoid(x) * torch.sigmoid(-x)


def logistic_bend(x: Tensor) -> Tensor:
    """σ''(x)."""
    return logistic_slope(x) * (1 - 2 * torch.sigmoid(x))


def gain(x: Tensor) -> Tensor:
    """σ(x) - σ(0): what one pixel adds to the output, and should get."""
    return torch.sigmoid(x) - 0.5


def around(root: Tensor, x: Tensor, order: int) -> Tensor:
    """The Taylor expansion of σ(x) - σ(root) at the root, of first or second order."""
    first = logistic_slope(root) * (x - root)
    return first if order == 1 else first + logistic_bend(root) * (x - root) ** 2 / 2


def lrp_0(pixels: Tensor) -> Tensor:
    """Root 0, slope at x: R = x σ'(x), from the compiled explainer."""
    return relcompile.compile(Toy(), pixels, rule="gradient*input", target=0)(pixels)[1]


def learned(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of the learned root, and its report (N, 1, quantities)."""
    rule = Composite("toy", (Entry(LearnedTangent(), kind="activation"), Entry(Adjoint())))
    _, relevance, report = relcompile.compile(Toy(), pixels, rule=rule, target=0, roots=True)(pixels)
    return relevance, report


def curves(x: Tensor) -> dict[str, Tensor]:
    """Relevance of one pixel at x, by way of sharing."""
    zero, pixels = torch.zeros_like(x), torch.stack([x, x], 1)
    return {
        "wanted: f(x) - f(0)": gain(x),
        "neighbouring root x - 0.5, first order": around(x - 0.5, x, 1),
        "root 0, slope at x (LRP-0)": lrp_0(pixels)[:, 0],
        "root 0, slope at 0 (second order is the same)": around(zero, x, 1),
        "half-way root, second order": around(x / 2, x, 2),
        "learned root, first order": learned(pixels)[0][:, 0],
    }


def draw(path: Path) -> None:
    """Contours with the roots of one point, and relevance against x."""
    figure, (plane, graph) = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    axis = torch.linspace(0, 4, 81, dtype=torch.float64)
    _plane(plane, axis)
    for label, values in curves(axis).items():
        graph.plot(axis, values, label=label, linewidth=3 if label.startswith("wanted") else 1.5)
    graph.set(xlabel="x", ylabel="relevance of x", title="which root adds up?", ylim=(0, 0.85))
    graph.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _plane(plane: Any, axis: Tensor) -> None:
    f = torch.sigmoid(axis)[None, :] + torch.sigmoid(axis)[:, None]
    lines = plane.contour(axis, axis, f, levels=12, cmap="viridis")
    plane.clabel(lines, fontsize=7)
    point = torch.tensor([[2.2138, 1.0]], dtype=torch.float64)
    relevance = learned(point)[0]
    # The root of the learned signal: where the tangent gives this much relevance.
    roots = {
        "x": point,
        "neighbouring root": point - 0.5,
        "root 0": point * 0,
        "learned root": root_of(point, relevance),
    }
    for name, place in roots.items():
        plane.plot(*place[0], "o", label=name, clip_on=False, zorder=3)
    plane.set(xlabel="x", ylabel="y", title="f(x, y) = σ(x) + σ(y) (reconstructed)")
    plane.legend(fontsize=8)


def root_of(x: Tensor, relevance: Tensor) -> Tensor:
    """The root between 0 and x whose tangent gives `relevance`, by bisection (the tangent falls with the root)."""
    low, high = torch.zeros_like(x), x
    for _ in range(60):
        middle = (low + high) / 2
        above = around(middle, x, 1) > relevance
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    return (low + high) / 2


def main() -> None:
    """Draw the figure and print what the ways of sharing make of two points."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("toy_roots.png"))
    path = parser.parse_args().output
    draw(path)
    points = torch.tensor([1.0, 2.2138], dtype=torch.float64)
    for label, values in curves(points).items():
        print(f"{label:48s}", *(f"{float(value):.5f}" for value in values))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
