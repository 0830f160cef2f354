"""One rule on one subject: its explainer, compiled once, and the maps that it makes."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from passes.rewrites.optimise.fold_constants import FoldConstants
from passes.runner import run_passes
from passes.stages import verify_canonical
from relcompile.backend.explainer import Explainer
from relcompile.compiler import CapturedModel, capture
from relcompile.errors import EvaluationError
from relcompile.evaluation.fed import Architecture, Fed, Weights
from relcompile.evaluation.metrics import perturbation
from relcompile.evaluation.randomised import cascade
from relcompile.evaluation.signal import of_signals
from relcompile.evaluation.subject import Subject
from relcompile.files.records import LayerRecord
from relcompile.metadata import Metadata
from relcompile.methods.results import AsMultiplier
from relcompile.question.options import Options

Maps = NDArray[np.float64]
_SUBSETS: Final = (0.1, 0.3, 0.5)  # shares of the patches that go, for sensitivity-n
Tick = Callable[[], None]


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        seed: of everything that is drawn.
        vectors: random relevances that start at the output, for CSC.
        steps: layers of the cascade.
        patch: side, in pixels, of what is removed at once; 0: a fourteenth of the side of the picture.
        superpixels: their number, for SRG; 0: patches.
        shares: of the picture that are removed.
        draws: perturbed inputs, or random subsets, for each picture.
        radius: of the perturbed inputs, as a share of the pictures' range.
        attack_steps: of the attack that maps guide, at most.
        attack_radius: how far it goes, as a share of the pictures' range; 1: as far as that, as released.
        parity: SSIM and IoU as the papers' released code has them.
    """

    seed: int = 0
    vectors: int = 5
    steps: int = 8
    patch: int = 0
    superpixels: int = 0
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
    draws: int = 8
    radius: float = 0.02
    attack_steps: int = 10
    attack_radius: float = 1.0
    parity: bool = False

    def patch_of(self, height: int, width: int) -> int:
        """The side of a patch in a picture of this size."""
        return self.patch or max(1, min(height, width) // 14)


USUAL: Final = Settings()


def folded(explainer: Explainer) -> Explainer:
    """The explainer, with all that it makes of weights (W⁺, turned kernels) made once, and not for every picture."""
    run_passes(explainer.graph_module, [FoldConstants(limit=sys.maxsize)], keeps=verify_canonical)
    return explainer


@dataclass(eq=False)
class Bench:
    """What trials of several rules share.

    Attributes:
        subject: network and pictures.
        settings: how much is measured.
        tick: told whenever a little is done.
        shown: rules whose maps are kept already.
    """

    subject: Subject
    settings: Settings = USUAL
    tick: Tick = lambda: None
    shown: set[str] = field(default_factory=set[str])

    def step(self, _name: str) -> None:
        """A step of a compilation is progress, too."""
        self.tick()

    @cached_property
    def architecture(self) -> Architecture:
        """What every rule is compiled for, to be fed with weights."""
        return Architecture(self.subject.network, self.example, self.step)

    @cached_property
    def weights(self) -> Weights:
        """Of the network as it is."""
        return self.architecture.weights(self.subject.network)

    @cached_property
    def random_weights(self) -> Mapping[str, Weights]:
        """Of the cascade, by the lowest layer that is random."""
        found = dict[str, Weights]()
        for layer, network in cascade(self.subject.network, self.settings.steps, self.settings.seed):
            found[layer] = self.architecture.weights(network)
            self.tick()
        return found

    @property
    def example(self) -> Tensor:
        """An input to compile for."""
        return self.subject.images[:2]

    @cached_property
    def patches(self) -> Tensor:
        """The number of the patch that each pixel lies in, (H, W)."""
        height, width = self.subject.images.shape[2:]
        return perturbation.patches(height, width, self.settings.patch_of(height, width))

    @cached_property
    def removals(self) -> list[tuple[float, Tensor, Tensor]]:
        """What random patches are to the scores: their share, which pixels go, (draws, H, W), the falls, (N, draws)."""
        draws, number = 4 * self.settings.draws, int(self.patches.max()) + 1
        found = list[tuple[float, Tensor, Tensor]]()
        for share in _SUBSETS:
            masks = perturbation.subsets(self.patches, max(1, round(share * number)), draws, self.settings.seed)
            falls = [self._falls(sample, masks) for sample in range(len(self.subject.images))]
            found.append((share, masks, torch.stack(falls)))
        return found

    def _falls(self, sample: int, masks: Tensor) -> Tensor:
        self.tick()
        target = int(self.subject.targets[sample])
        return perturbation.falls(
            lambda images: self.subject.predict(images)[:, target], self.subject.images[sample], masks
        )

    @cached_property
    def captured(self) -> CapturedModel:
        """The network as it is, which every rule is compiled from."""
        return capture(self.subject.network, self.example)


@dataclass(eq=False)
class Trial:
    """One rule.

    Attributes:
        bench: what it is tried on.
        name: of the rule, in the tables of results.
        options: what is asked of the compiler.
    """

    bench: Bench
    name: str
    options: Options

    @cached_property
    def explainer(self) -> Fed:
        """Compiled for the target as an input, to be fed with weights."""
        return Fed(self.bench.architecture, self.options)

    @property
    def metadata(self) -> Metadata:
        """What the explainer says of itself."""
        return self.explainer.metadata

    @cached_property
    def own(self) -> Tensor:
        """Relevance of the targets, (N, C, H, W)."""
        return self.relevance(self.bench.subject.images, self.bench.subject.targets)

    @cached_property
    def maps(self) -> Maps:
        """The same, (N, H, W)."""
        return self.flat(self.own)

    def explain(self, images: Tensor, targets: Tensor, weights: Weights | None = None) -> Maps:
        """Maps (N, H, W) in float64; see `flat`."""
        return self.flat(self.relevance(images, targets, weights))

    def relevance(self, images: Tensor, targets: Tensor, weights: Weights | None = None) -> Tensor:
        """Relevance (N, C, H, W) of any pictures and classes, with any weights."""
        size, found = self.bench.subject.batch, list[Tensor]()
        for part, classes in zip(images.split(size), targets.split(size), strict=True):
            outputs = self.explainer.explain(
                weights or self.bench.weights, part, classes, seed=self.bench.settings.seed
            )
            found.append(outputs[len(self.metadata.outputs)])
            self.bench.tick()
        return torch.cat(found)

    def flat(self, relevance: Tensor) -> Maps:
        """(N, C, H, W) -> (N, H, W): the sum over channels; the largest |value| for a gradient, whose sign says little.

        Source: Sixt et al. 2020, released code.
        """
        wide = relevance.double()
        is_gradient = isinstance(self.options.composite.result, AsMultiplier)
        return (wide.abs().amax(1) if is_gradient else wide.sum(1)).numpy()

    def layered(self, layers: list[str], **asked: Any) -> Any:
        """An explainer of the network as it is, that also reads relevance at `layers`.

        Raises:
            EvaluationError: the rule averages over noisy copies.
        """
        if self.metadata.noise:
            raise EvaluationError(f"{self.name} averages over noisy copies of the input: no layer has one relevance")
        options = replace(self.options, taps=tuple(layers), **asked)
        return folded(self.bench.captured.compile_as_asked(options, self.bench.step))

    def signals(self) -> Tensor:
        """What is left of the pictures without the roots of the layers that read them, (N, C, H, W).

        Raises:
            EvaluationError: the rule learns no such roots.
        """
        options = replace(self.options, rule=of_signals(self.options.composite), layers=(), rules=())
        explainer = folded(self.bench.captured.compile_as_asked(options, self.bench.step))
        subject, place = self.bench.subject, len(self.metadata.outputs)
        parts = zip(subject.images.split(subject.batch), subject.targets.split(subject.batch), strict=True)
        with torch.no_grad():
            return torch.cat([explainer(images, targets)[place] for images, targets in parts])

    @property
    def layers(self) -> list[LayerRecord]:
        """Layers with weights and a name of their own, from the input to the output."""
        affine = [record for record in self.metadata.layers if record.kind == "affine" and record.name]
        count = Counter(record.name for record in affine)
        return [record for record in affine if count[record.name] == 1]
