"""The measures that `--metrics` names, as one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from relcompile.errors import EvaluationError
from relcompile.evaluation.metrics import (
    attack,
    convergence,
    localisation,
    perturbation,
    similarity,
    spectra,
    stability,
)
from relcompile.evaluation.metrics import roots as root_answers
from relcompile.evaluation.results import Row
from relcompile.evaluation.trial import Trial
from relcompile.files.records import LayerRecord
from relcompile.methods.results import AsMultiplier

Question: TypeAlias = Literal["layers", "faithful", "localised", "stable", "conserved"]
QUESTIONS: Final[Mapping[Question, str]] = {
    "layers": "Does it depend on later layers?",
    "faithful": "Is it faithful?",
    "localised": "Is it localised?",
    "stable": "Is it stable?",
    "conserved": "Does it conserve?",
}
INPUT: Final = "input"
QUANTILES: Final = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class Measure:
    """One row of the table.

    Attributes:
        name: as `--metrics` takes it.
        question: which it answers.
        run: the numbers of one rule.
        of_model: it is a fact of the network alone, so it is measured once, for no rule.
        masks: it needs to know where the objects are.
    """

    name: str
    question: Question
    run: Callable[[Trial], Iterator[Row]]
    of_model: bool = False
    masks: bool = False

    @property
    def summary(self) -> str:
        """One line."""
        return (self.run.__doc__ or "").splitlines()[0]


def csc(trial: Trial) -> Iterator[Row]:
    """Cosine similarity convergence of random relevances at the output, at every layer: quantiles over places."""
    records = trial.layers[:-1]
    explainer = trial.layered([record.name for record in records], target="seeds")
    settings, subject = trial.bench.settings, trial.bench.subject
    generator = torch.Generator().manual_seed(settings.seed)
    first = len(trial.metadata.outputs)
    for sample, image in enumerate(subject.images):
        seeds = torch.randn(1, settings.vectors, subject.scores.shape[1], generator=generator)
        with torch.no_grad():
            relevance, *taps = explainer(image[None], seeds)[first:]
        trial.bench.tick()
        yield from _converged(trial.name, sample, INPUT, relevance[0], 1)
        for record, tap in zip(records, taps, strict=True):
            yield from _converged(trial.name, sample, record.name, tap[0], _channels(record))


def _converged(rule: str, sample: int, layer: str, relevance: Tensor, channels: int) -> Iterator[Row]:
    cosines = convergence.csc(relevance, channels)
    for step, value in zip(QUANTILES, convergence.quantiles(cosines, QUANTILES), strict=True):
        yield Row(rule, "csc", sample, float(value), layer, step)
    yield Row(rule, "csc-silent", sample, float(cosines.isnan().double().mean()), layer)
    if sample == 0:
        yield Row(rule, "csc-random", -1, convergence.random_cosine(relevance.shape[channels]), layer)


def _channels(record: LayerRecord) -> int:
    return 1 if record.operator == "convolution" else -1


def random_logit(trial: Trial) -> Iterator[Row]:
    """SSIM of the map of the class and that of another class, drawn at random."""
    subject, settings = trial.bench.subject, trial.bench.settings
    others = trial.explain(subject.images, subject.others(settings.seed))
    for sample, pair in enumerate(zip(trial.maps, others, strict=True)):
        plain, flipped = similarity.similarity(*pair, parity=settings.parity)
        yield Row(trial.name, "random-logit", sample, plain)
        yield Row(trial.name, "random-logit-flipped", sample, flipped)


def cascade(trial: Trial) -> Iterator[Row]:
    """SSIM of the map and that of a network with random weights from the top down to a layer (MPRT, eMPRT)."""
    subject, settings = trial.bench.subject, trial.bench.settings
    maps = trial.maps
    for layer, weights in trial.bench.random_weights.items():
        maps = trial.explain(subject.images, subject.targets, weights)
        for sample, pair in enumerate(zip(trial.maps, maps, strict=True)):
            plain, flipped = similarity.similarity(*pair, parity=settings.parity)
            yield Row(trial.name, "cascade", sample, plain, layer)
            yield Row(trial.name, "cascade-flipped", sample, flipped, layer)
    for sample, (own, random) in enumerate(zip(trial.maps, maps, strict=True)):
        yield Row(trial.name, "efficient-mprt", sample, similarity.complexity_rise(own, random))


def singular(trial: Trial) -> Iterator[Row]:
    """σ1 / σ2 of every layer's weights (of the centre of a kernel): how near it is to rank 1."""
    for name, module in trial.bench.subject.network.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor) or weight.dim() < 2:
            continue
        centre = weight.detach().double()[(..., *(size // 2 for size in weight.shape[2:]))]
        yield Row("", "singular-ratio", -1, spectra.ratio(centre.numpy()), name)


def srg(trial: Trial) -> Iterator[Row]:
    """Symmetric relevance gain: area between the curves with the least and with the most relevant patches removed."""
    shares = trial.bench.settings.shares
    for occluder, replace in perturbation.OCCLUDERS.items():
        replaced = replace(trial.bench.subject.images)
        values = np.concatenate([_curves(trial, part, segments, replaced) for part, segments in _pieces(trial)])
        for sample, area in enumerate(perturbation.srg(values, shares)):
            yield Row(trial.name, "srg", sample, float(area), occluder)
        for side, metric in enumerate(("lerf", "morf")):
            for step, column in zip((0.0, *shares, 1.0), values[:, side].T, strict=True):
                yield from (Row(trial.name, metric, i, float(v), occluder, step) for i, v in enumerate(column))


def _pieces(trial: Trial) -> Iterator[tuple[slice, Tensor]]:
    """Samples, and the pieces that they are taken apart into."""
    subject, settings = trial.bench.subject, trial.bench.settings
    if not settings.superpixels:
        yield slice(0, len(subject.images)), trial.bench.patches
        return
    for sample, image in enumerate(subject.images):
        yield slice(sample, sample + 1), perturbation.superpixels(image.numpy(), settings.superpixels)


def _curves(trial: Trial, part: slice, segments: Tensor, replaced: Tensor) -> NDArray[np.float32]:
    subject, shares = trial.bench.subject, trial.bench.settings.shares
    targets = subject.targets[part, None]

    def score(images: Tensor) -> Tensor:
        trial.bench.tick()
        return subject.probabilities(images).gather(1, targets)[:, 0]

    rank = perturbation.ranks(torch.from_numpy(trial.maps[part]), segments)
    return perturbation.curves(score, subject.images[part], replaced[part], rank, segments, shares).numpy()


def sensitivity_n(trial: Trial) -> Iterator[Row]:
    """Correlation of relevance, summed over random patches, with the fall of the score without them."""
    for share, masks, falls in trial.bench.removals:
        for sample, (relevance, fall) in enumerate(zip(trial.maps, falls, strict=True)):
            value = perturbation.sensitivity_n(torch.from_numpy(relevance), masks, fall)
            yield Row(trial.name, "sensitivity-n", sample, value, step=share)


def localisation_of(trial: Trial) -> Iterator[Row]:
    """Pointing game, relevance mass and rank accuracy, IoU and mPA: against masks of the objects."""
    masks = trial.bench.subject.masks
    if masks is None:
        raise EvaluationError("it is not known where the objects are: give masks")
    settings = trial.bench.settings
    metrics = {
        "pointing": localisation.pointing,
        "mass": localisation.mass,
        "rank": localisation.rank,
        "iou": partial(localisation.iou, parity=settings.parity),
        "mpa": localisation.pixel_accuracy,
    }
    for sample, (relevance, mask) in enumerate(zip(trial.maps, masks, strict=True)):
        yield Row(trial.name, "mask-area", sample, float(mask.mean()))
        yield from (Row(trial.name, name, sample, metric(relevance, mask)) for name, metric in metrics.items())


def stability_of(trial: Trial) -> Iterator[Row]:
    """Max-sensitivity and relative input stability, under uniform noise."""
    subject, settings = trial.bench.subject, trial.bench.settings
    radius = settings.radius * float(subject.images.max() - subject.images.min())
    generator = torch.Generator().manual_seed(settings.seed)
    for sample, image in enumerate(subject.images):
        noise = torch.rand(settings.draws, *image.shape, generator=generator, dtype=image.dtype) * 2 - 1
        inputs = image + radius * noise
        maps = trial.relevance(inputs, subject.targets[sample].expand(settings.draws)).double()
        given = trial.own[sample].double()
        value = stability.max_sensitivity(trial.flat(given[None])[0], trial.flat(maps))
        yield Row(trial.name, "max-sensitivity", sample, value)
        arrays = (given, maps, image.double(), inputs.double())
        ris = stability.relative_input_stability(*(array.numpy() for array in arrays))
        yield Row(trial.name, "relative-input-stability", sample, ris)


def conservation(trial: Trial) -> Iterator[Row]:
    """Sum of relevance at every layer, and what layers absorb, as shares of the sum at the last layer."""
    if isinstance(trial.options.composite.result, AsMultiplier):
        raise EvaluationError(f"{trial.name} is a gradient: there is nothing that it conserves")
    names = [record.name for record in trial.layers]
    explainer = trial.layered(names, absorbed=True)
    subject, first = trial.bench.subject, len(trial.metadata.outputs)
    kinds = [record.name or record.operator for record in explainer.metadata.layers]
    for start in range(0, len(subject.images), subject.batch):
        part = slice(start, start + subject.batch)
        with torch.no_grad():
            relevance, *taps, absorbed = explainer(subject.images[part], subject.targets[part])[first:]
        trial.bench.tick()
        sums = torch.stack([tap.double().flatten(1).sum(1) for tap in (relevance, *taps)], 1)
        total = sums[:, -1:]
        for k, (shares, lost) in enumerate(zip(sums / total, absorbed.double() / total, strict=True), start):
            yield from _rows(trial.name, "conservation", k, (INPUT, *names), shares)
            yield from _rows(trial.name, "absorbed", k, kinds, lost)


def attack_of(trial: Trial) -> Iterator[Row]:
    """Steps until the class changes if only the most relevant pixels do, and whether it does."""
    subject, settings = trial.bench.subject, trial.bench.settings
    bounds = float(subject.images.min()), float(subject.images.max())
    right = subject.scores.argmax(1) == subject.targets
    for sample, (image, target) in enumerate(zip(subject.images.split(1), subject.targets.split(1), strict=True)):
        steps = None
        if right[sample]:
            steps = attack.guided_attack(
                subject.answer,
                lambda x, target=target: trial.relevance(x, target),
                image,
                int(target),
                settings.attack_steps,
                radius=settings.attack_radius * (bounds[1] - bounds[0]),
                bounds=bounds,
            )
        hit = float(steps is not None) if right[sample] else float("nan")
        yield Row(trial.name, "attack-hit", sample, hit)
        yield Row(trial.name, "attack-steps", sample, float("nan") if steps is None else float(steps))


def roots(trial: Trial) -> Iterator[Row]:
    """How far learned roots are, what the layer still answers there, and the network to the input's root and signal."""
    explainer = trial.layered([], roots=True)
    subject, record = trial.bench.subject, explainer.metadata.roots
    assert record is not None
    for start in range(0, len(subject.images), subject.batch):
        part = slice(start, start + subject.batch)
        with torch.no_grad():
            report = explainer(subject.images[part], subject.targets[part])[-1]
        for k, quantity in enumerate(record.quantities):
            for sample, values in enumerate(report[:, :, k], start):
                yield from _rows(trial.name, f"root {quantity}", sample, record.layers, values)
    found = root_answers.answers(subject.predict, subject.images, trial.signals(), subject.targets)
    for shown, (scores, kept) in found.items():
        for sample, (score, is_best) in enumerate(zip(scores.tolist(), kept.tolist(), strict=True)):
            yield Row(trial.name, "answer", sample, score, shown)
            yield Row(trial.name, "answer-kept", sample, float(is_best), shown)


def _rows(rule: str, metric: str, sample: int, layers: tuple[str, ...] | list[str], values: Tensor) -> Iterator[Row]:
    for layer, value in zip(layers, values.tolist(), strict=True):
        yield Row(rule, metric, sample, value, layer)


MEASURES: Final[Mapping[str, Measure]] = {
    measure.name: measure
    for measure in (
        Measure("csc", "layers", csc),
        Measure("random-logit", "layers", random_logit),
        Measure("cascade", "layers", cascade),
        Measure("singular", "layers", singular, of_model=True),
        Measure("srg", "faithful", srg),
        Measure("sensitivity-n", "faithful", sensitivity_n),
        Measure("roots", "faithful", roots),
        Measure("attack", "faithful", attack_of),
        Measure("localisation", "localised", localisation_of, masks=True),
        Measure("stability", "stable", stability_of),
        Measure("conservation", "conserved", conservation),
    )
}
