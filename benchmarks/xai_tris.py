"""XAI-TRIS: which rules find what decides, and resist suppressor variables? 8x8 pictures whose truth is known.

A tetromino (T or L, the two classes) is laid into noise. LINEAR: a T or an L at a place of its own. MULTIPLICATIVE: it
dampens the noise there. RIGID: anywhere, in any of four turns. XOR: both, their signs alike or not. Background: WHITE
noise, or CORRELATED, smoothed noise: pixels beside the truth help to remove the noise from it, and so are used without
being related to the class: suppressors. The generator is our own, from Clark, Wilming, Haufe 2024 (2306.12816).

Precision: share of the top n pixels of |R| that lie in the truth, n its size. EMD: 1 - (cost of moving |R| onto the
truth) / (largest distance), both as distributions. Of test pictures that are classified correctly alone. Intervals are
bootstraps over the pictures of all repetitions.

    python -m benchmarks.xai_tris --repetitions 5 --json xai_tris.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.ndimage import gaussian_filter, laplace, sobel
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

import relcompile
from passes.errors import PassError
from relcompile.errors import RelcompileError
from relcompile.evaluation.fed import Architecture, Fed
from relcompile.evaluation.metrics.intervals import Estimate, estimate
from relcompile.presets import PRESETS, AsMultiplier
from relcompile.question.options import Options

Maps = NDArray[np.float64]
SIDE: Final = 8
_T: Final = np.array([[1, 0], [1, 1], [1, 0]])
_L: Final = np.array([[1, 0], [1, 0], [1, 1]])
_PLACES: Final = ((1, 1), (4, 5))
_SMOOTH: Final = 3.0
# Share of the signal in the picture, for white and for correlated backgrounds.
SCENARIOS: Final = {
    "linear": (0.18, 0.0125),
    "multiplicative": (0.7, 0.1),
    "rigid": (0.65, 0.2),
    "xor": (0.35, 0.15),
}
BACKGROUNDS: Final = ("white", "correlated")


@dataclass(frozen=True)
class Sample:
    """Pictures (N, 1, 8, 8), classes (N,), and the pixels that decide (N, 8, 8)."""

    images: Tensor
    labels: Tensor
    truth: NDArray[np.bool_]


@dataclass(frozen=True)
class Score:
    """One rule in one scenario: means over repetitions and pictures, with intervals."""

    scenario: str
    background: str
    rule: str
    precision: Estimate
    emd: Estimate


def generate(scenario: str, background: str, number: int, rng: np.random.Generator) -> Sample:
    """Pictures of one scenario, half of each class."""
    labels = rng.permutation(np.arange(number) % 2)
    patterns = np.stack([_pattern(scenario, label, rng) for label in labels])
    noise = rng.normal(0, 0.5, patterns.shape)
    if background == "correlated":
        noise = np.stack([gaussian_filter(picture, _SMOOTH) for picture in noise])
    share = SCENARIOS[scenario][BACKGROUNDS.index(background)]
    signal, noise = (part / np.linalg.norm(part, axis=(1, 2), keepdims=True) for part in (patterns, noise))
    if scenario == "multiplicative":
        strength = np.abs(patterns) / np.abs(patterns).max((1, 2), keepdims=True)
        mixed = (1 - share * strength) * noise
    else:
        mixed = share * signal + (1 - share) * noise
    mixed /= np.abs(mixed).max((1, 2), keepdims=True)
    truth = patterns != 0
    if scenario in ("linear", "multiplicative"):  # the place of the other class is empty, and that is informative, too
        truth = np.broadcast_to(_both() != 0, truth.shape)
    return Sample(torch.from_numpy(mixed[:, None].astype(np.float32)), torch.from_numpy(labels), truth)


def _pattern(scenario: str, label: int, rng: np.random.Generator) -> Maps:
    picture = np.zeros((SIDE, SIDE))
    if scenario == "rigid":
        shape = np.rot90((_T, _L)[label], int(rng.integers(4)))
        row, column = (int(rng.integers(SIDE - size + 1)) for size in shape.shape)
        _lay(picture, shape, row, column)
        return picture
    if scenario == "xor":
        sign = rng.choice((-1, 1))
        return sign * (_one(0) + (1 if label == 0 else -1) * _one(1))
    return _one(label)


def _one(which: int) -> Maps:
    picture = np.zeros((SIDE, SIDE))
    _lay(picture, (_T, _L)[which], *_PLACES[which])
    return picture


def _both() -> Maps:
    return _one(0) + _one(1)


def _lay(picture: Maps, shape: Maps, row: int, column: int) -> None:
    picture[row : row + shape.shape[0], column : column + shape.shape[1]] += shape


def cnn() -> nn.Sequential:
    """Three convolutions with ReLU, a max pool, one dense layer; scores of two classes."""
    layers, channels = list[nn.Module](), 1
    for width in (8, 16, 16):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
        channels = width
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16 * 16, 2))


def trained(sample: Sample, seed: int, epochs: int) -> nn.Sequential:
    """A network fitted to the sample with Adam."""
    torch.manual_seed(seed)
    network = cnn()
    steps = torch.optim.Adam(network.parameters(), 2e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(sample.labels)).split(64):
            steps.zero_grad()
            nn.functional.cross_entropy(network(sample.images[index]), sample.labels[index]).backward()
            steps.step()
    return network.eval()


def precision(relevance: Maps, truth: NDArray[np.bool_]) -> float:
    """Share of the |truth| largest |R| that lie in the truth."""
    top = np.argsort(-np.abs(relevance).ravel(), kind="stable")[: truth.sum()]
    return float(truth.ravel()[top].mean())


_UNITS: Final = 64  # grains that each distribution is made of
_GRID: Final = np.argwhere(np.ones((SIDE, SIDE)))
_DISTANCE: Final = np.linalg.norm(_GRID[:, None] - _GRID[None], axis=-1)


def emd(relevance: Maps, truth: NDArray[np.bool_]) -> float:
    """1 - EMD / largest distance, between |R| and the truth as distributions of 64 equal grains (exact assignment)."""
    places = [_grains(np.abs(relevance).ravel()), _grains(truth.astype(float).ravel())]
    cost = _DISTANCE[np.ix_(*places)]
    return float(1 - cost[linear_sum_assignment(cost)].mean() / _DISTANCE.max())


def _grains(weights: Maps) -> NDArray[np.int64]:
    """Places of 64 grains: the largest remainders get what rounding leaves over."""
    total = weights.sum()
    wanted = (weights / total if total > 0 else np.full(len(weights), 1 / len(weights))) * _UNITS
    counts = np.floor(wanted).astype(int)
    for place in np.argsort(-(wanted - counts))[: _UNITS - counts.sum()]:
        counts[place] += 1
    return np.repeat(np.arange(len(weights)), counts)


def baselines(sample: Sample, rng: np.random.Generator) -> dict[str, Maps]:
    """Maps that no network was asked for: edge filters, the picture, chance."""
    pictures = sample.images[:, 0].double().numpy()
    edges = np.hypot(sobel(pictures, 1), sobel(pictures, 2))
    laplacian = np.stack([laplace(picture) for picture in pictures])
    return {"(sobel)": edges, "(laplace)": laplacian, "(x)": pictures, "(random)": rng.standard_normal(pictures.shape)}


class Trained:
    """A network, what it was trained with, and its weights as they are fed."""

    def __init__(self, network: nn.Module, train: Sample) -> None:
        self.network, self.train = network, train
        self.architecture = Architecture(network, train.images[:2])
        self.weights = self.architecture.weights(network)


class Rules:
    """One graph for each rule, compiled once and fed with the weights of every network."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._fed = dict[str, Fed | None]()

    def maps(self, name: str, net: Trained, test: Sample) -> Maps | None:
        """Relevance of the true class; None, said aloud once, for a rule that this network cannot have."""
        if name not in self._fed or "calibration" in PRESETS[name].needs:
            self._fed[name] = _compiled(name, net)
        fed = self._fed[name]
        if fed is None:
            return None
        relevance = fed.explain(net.weights, test.images, test.labels)[1].double()
        is_gradient = isinstance(fed.explainer.options.composite.result, AsMultiplier)
        return (relevance.abs().amax(1) if is_gradient else relevance.sum(1)).numpy()


def _compiled(name: str, net: Trained) -> Fed | None:
    needs = PRESETS[name].needs
    bounds = (-1.0, 1.0) if "bounds" in needs else None
    learned = relcompile.calibrate(net.network, net.train.images.split(256)) if "calibration" in needs else None
    try:
        return Fed(net.architecture, Options(rule=name, bounds=bounds, calibration=learned))
    except (RelcompileError, PassError) as error:
        print(f"{name}: {str(error).splitlines()[0]}")
        return None


def measure(
    scenario: str, background: str, rules: Rules, repetitions: int, number: int, epochs: int
) -> tuple[list[Score], float]:
    """Scores of all rules, and the networks' accuracy."""
    values, accuracy = dict[str, tuple[list[float], list[float]]](), list[float]()
    for seed in range(repetitions):
        rng = np.random.default_rng(seed)
        train, test = generate(scenario, background, number, rng), generate(scenario, background, 200, rng)
        network = trained(train, seed, epochs)
        with torch.no_grad():
            right = (network(test.images).argmax(1) == test.labels).numpy()
        accuracy.append(float(right.mean()))
        test = Sample(test.images[right], test.labels[right], test.truth[right])
        net = Trained(network, train)
        found = {name: rules.maps(name, net, test) for name in rules.names}
        for name, relevance in {**found, **baselines(test, rng)}.items():
            if relevance is not None:
                pairs = list(zip(relevance, test.truth, strict=True))
                kept = values.setdefault(name, ([], []))
                kept[0].extend(precision(*pair) for pair in pairs)
                kept[1].extend(emd(*pair) for pair in pairs)
    scores = [
        Score(scenario, background, name, *(estimate(np.array(v)) for v in pair)) for name, pair in values.items()
    ]
    return scores, float(np.mean(accuracy))


def show(scores: Sequence[Score]) -> None:
    """One row a rule, one column a scenario: precision, with the half width of its interval."""
    columns = list(dict.fromkeys((score.scenario, score.background) for score in scores))
    table = Table("rule", *(f"{scenario}, {background}" for scenario, background in columns))
    by_key: dict[tuple[str, str, str], Score] = {(s.rule, s.scenario, s.background): s for s in scores}
    for rule in dict.fromkeys(score.rule for score in scores):
        found = [by_key[rule, *column] for column in columns]
        table.add_row(rule, *(f"{s.precision.value:.2f} ±{_half(s.precision):.2f} / {s.emd.value:.2f}" for s in found))
    Console(width=240).print(table)


def _half(found: Estimate) -> float:
    return (found.high - found.low) / 2


def usable_rules() -> list[str]:
    """All rules, but for the unrolled twins of others."""
    return [name for name in PRESETS if not name.endswith("-unrolled")]


def main(arguments: Sequence[str] | None = None) -> list[Score]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=list(SCENARIOS))
    parser.add_argument("--backgrounds", nargs="+", default=list(BACKGROUNDS))
    parser.add_argument("--rules", nargs="+", default=usable_rules())
    parser.add_argument("--repetitions", type=int, default=5, help="networks for each scenario")
    parser.add_argument("--number", type=int, default=4000, help="training pictures")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    scores, rules = list[Score](), Rules(options.rules)
    for scenario in options.scenarios:
        for background in options.backgrounds:
            more, accuracy = measure(scenario, background, rules, options.repetitions, options.number, options.epochs)
            print(f"{scenario}, {background}: {100 * accuracy:.1f} % right")
            scores += more
            if options.json:
                options.json.write_text(json.dumps([asdict(score) for score in scores]), encoding="utf-8")
    show(scores)
    return scores


if __name__ == "__main__":
    main()
