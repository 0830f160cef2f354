"""Every measure has the value that one finds by hand, and another one where the explanation is wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from relcompile.evaluation.metrics import (
    attack,
    convergence,
    localisation,
    perturbation,
    roots,
    similarity,
    spectra,
    stability,
)
from relcompile.evaluation.metrics.intervals import estimate

MAP = np.arange(64.0).reshape(8, 8)
MASK = MAP >= 48  # the 16 largest
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal((8, 8))


@pytest.mark.parametrize(
    ("vectors", "expected"),
    [
        ([[[1.0], [0.0]], [[0.0], [1.0]]], [0.0]),  # at right angles
        ([[[1.0], [2.0]], [[-2.0], [-4.0]]], [1.0]),  # the same but for sign and size
        ([[[1.0], [0.0]], [[1.0], [1.0]]], [1 / math.sqrt(2)]),
        ([[[1e-30], [0.0]], [[1e30], [1e30]]], [1 / math.sqrt(2)]),  # squares would over- and underflow
        ([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 0.0]]], [1.0, 0.0]),  # two places
        ([[[3.0, 4.0]], [[4.0, 3.0]]], [24 / 25]),  # one channel: as a map
        ([[[0.0], [0.0]], [[1.0], [1.0]]], [math.nan]),  # nothing arrives
    ],
)
def test_csc(vectors: list, expected: list[float]) -> None:
    found = convergence.csc(torch.tensor(vectors))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), equal_nan=True)


def test_csc_reads_channels_where_they_are() -> None:
    vectors = torch.randn(3, 4, 7)
    torch.testing.assert_close(convergence.csc(vectors, -1), convergence.csc(vectors.transpose(1, 2)))


def test_csc_counts_all_pairs_at_all_places() -> None:
    assert len(convergence.csc(torch.randn(5, 3, 2, 4))) == 10 * 8
    assert math.isnan(convergence.quantiles(torch.full((4,), math.nan), (0.5,))[0])


@pytest.mark.parametrize(("channels", "expected"), [(1, 1.0), (3, 0.5), (10_000, 0.6745 / 100)])
def test_random_cosine(channels: int, expected: float) -> None:
    """In three dimensions |cos| is uniform (Archimedes); in many it is a half normal number."""
    assert convergence.random_cosine(channels) == pytest.approx(expected, rel=1e-3)


def test_ssim_is_scikit_images() -> None:
    a, b = similarity.normalised(NOISE), similarity.normalised(MAP)
    assert similarity.ssim(a, b) == structural_similarity(a, b, win_size=5, data_range=1.0)
    assert similarity.ssim(a, b, 2.0) == structural_similarity(a, b, win_size=5, data_range=2.0)


def test_normalised_is_between_the_percentiles() -> None:
    found = similarity.normalised(np.arange(1001.0)[None])
    assert (found.min(), found.max(), found[0, 500]) == (0, 1, 0.5)
    assert (found == 0).sum() == 6  # 0, 1, ..., 5
    assert not similarity.normalised(np.ones((5, 5))).any()


@pytest.mark.parametrize(
    ("first", "second", "plain", "flipped"),
    [(NOISE, NOISE, 1, 1), (NOISE, 7 * NOISE + 3, 1, 1), (NOISE, -NOISE, None, 1)],
)
def test_similarity_up_to_the_sign(first: np.ndarray, second: np.ndarray, plain: float | None, flipped: float) -> None:
    found = similarity.similarity(first, second)
    assert found[1] == pytest.approx(flipped)
    assert found[0] < 0 if plain is None else found[0] == pytest.approx(plain)


@pytest.mark.parametrize(("data_range", "expected"), [(False, 0.016), (True, 0.052)])
def test_similarity_of_independent_maps(data_range: bool, expected: float) -> None:
    """Independent N(0, 1) maps, as the reference has them for a data range of 1 and of 2."""
    maps = np.random.default_rng(1).standard_normal((20, 2, 64, 64))
    found = [similarity.similarity(*pair, parity=data_range)[0] for pair in maps]
    assert np.mean(found) == pytest.approx(expected, abs=0.006)


def test_entropy() -> None:
    assert similarity.entropy(np.arange(100.0)) == pytest.approx(math.log(100))
    assert similarity.entropy(np.ones(10)) == 0


@pytest.mark.parametrize(
    ("random", "rise"),
    [
        (np.arange(100.0), 1),  # log 100 after log 10
        (np.arange(100.0) // 10, 0),
        (1.0 * (np.arange(100) < 50), math.log10(2) - 1),  # two values
        (np.zeros(100), math.nan),  # relevance has vanished
        (np.ones(100), math.nan),
    ],
)
def test_complexity_rise(random: np.ndarray, rise: float) -> None:
    """Beside a map of ten values, ten times each."""
    ten = np.repeat(np.arange(10.0), 10)
    assert similarity.complexity_rise(ten, random) == pytest.approx(rise, nan_ok=True)
    assert math.isnan(similarity.complexity_rise(np.zeros(100), random))


@pytest.mark.parametrize(
    ("metric", "right", "wrong"),
    [
        (localisation.pointing, 1.0, 0.0),
        (localisation.mass, sum(range(48, 64)) / sum(range(64)), 0.0),
        (localisation.rank, 1.0, 0.0),
        (localisation.iou, 16 / 32, 0.0),
        (localisation.pixel_accuracy, 1.0, 0.0),
    ],
)
def test_localisation(metric: Callable[..., float], right: float, wrong: float) -> None:
    assert metric(MAP, MASK) == pytest.approx(right)
    assert metric(np.where(MASK, -1.0, 1.0), MASK) == wrong


@pytest.mark.parametrize("metric", [localisation.pointing, localisation.rank])
def test_ties_count_with_their_chance(metric: Callable[..., float]) -> None:
    assert metric(np.ones((8, 8)), MASK) == pytest.approx(16 / 64)


def test_iou_of_the_released_code_is_twice_as_large() -> None:
    assert localisation.iou(MAP, MASK, parity=True) == 1.0


@pytest.mark.parametrize("metric", [localisation.rank, localisation.pixel_accuracy])
def test_no_object_no_number(metric: Callable[..., float]) -> None:
    assert math.isnan(metric(MAP, np.zeros_like(MASK)))
    assert math.isnan(localisation.mass(-MAP, MASK))


WEIGHTS = torch.linspace(-1, 1, 9).reshape(1, 1, 3, 3).repeat_interleave(4, 2).repeat_interleave(4, 3)


def linear(images: Tensor) -> Tensor:
    return (images * WEIGHTS).sum((1, 2, 3))


def srg(relevance: Tensor) -> float:
    segments, shares = perturbation.patches(12, 12, 4), (1 / 3, 2 / 3)
    rank = perturbation.ranks(relevance[None], segments)
    images = torch.ones(1, 1, 12, 12)
    values = perturbation.curves(linear, images, torch.zeros_like(images), rank, segments, shares)
    return float(perturbation.srg(values.numpy(), shares)[0])


def test_curves_of_a_linear_model() -> None:
    """Pieces are worth -16, -12, ..., 16. LeRF: 0, 36, 36, 0; MoRF: 0, -36, -36, 0."""
    segments, shares = perturbation.patches(12, 12, 4), (1 / 3, 2 / 3)
    images = torch.ones(1, 1, 12, 12)
    rank = perturbation.ranks(WEIGHTS[:, 0], segments)
    assert rank.tolist() == [list(range(9))]
    values = perturbation.curves(linear, images, torch.zeros_like(images), rank, segments, shares)
    expected = torch.tensor([[[0.0, 36, 36, 0], [0.0, -36, -36, 0]]])
    torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)
    assert perturbation.srg(values.numpy(), shares)[0] == pytest.approx(72 * 2 / 3, rel=1e-5)


def test_srg_tells_right_from_wrong() -> None:
    assert srg(WEIGHTS[0, 0]) == pytest.approx(48, rel=1e-5)
    assert srg(-WEIGHTS[0, 0]) == pytest.approx(-48, rel=1e-5)
    draws = [srg(torch.randn(12, 12, generator=torch.Generator().manual_seed(k))) for k in range(40)]
    assert abs(np.mean(draws)) < 12


def test_patches_and_superpixels_cover_the_picture() -> None:
    assert perturbation.patches(3, 5, 2).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 2], [3, 3, 4, 4, 5]]
    image = np.zeros((3, 16, 16))
    image[:, :, 8:] = 1
    found = perturbation.superpixels(image, 4)
    assert not set(found[:, :8].flatten().tolist()) & set(found[:, 8:].flatten().tolist())
    assert sorted(set(found.flatten().tolist())) == list(range(int(found.max()) + 1))


def test_occluders() -> None:
    images = torch.rand(2, 3, 16, 16)
    assert not perturbation.mean_value(images).any()
    torch.testing.assert_close(perturbation.blurred(torch.ones(1, 1, 16, 16)), torch.ones(1, 1, 16, 16))
    assert perturbation.blurred(images).var() < images.var() / 4
    drawn = perturbation.noise(images)
    assert images.min() <= drawn.min() < drawn.max() <= images.max()


@pytest.mark.parametrize(("relevance", "expected"), [(WEIGHTS[0, 0], 1.0), (-3 * WEIGHTS[0, 0], -1.0)])
def test_sensitivity_n_of_a_linear_model(relevance: Tensor, expected: float) -> None:
    segments = perturbation.patches(12, 12, 4)
    masks = perturbation.subsets(segments, 4, 64)
    fall = perturbation.falls(linear, torch.ones(1, 12, 12), masks)
    assert perturbation.sensitivity_n(relevance, masks, fall) == pytest.approx(expected)
    assert math.isnan(perturbation.sensitivity_n(torch.zeros(12, 12), masks, fall))


def test_subsets_are_whole_segments() -> None:
    masks = perturbation.subsets(perturbation.patches(4, 6, 2), 2, 3, seed=1)
    assert masks.shape == (3, 4, 6)
    assert (masks.flatten(1).sum(1) == 2 * 4).all()
    assert torch.equal(masks[:, ::2, ::2].repeat_interleave(2, 1).repeat_interleave(2, 2), masks)


def test_max_sensitivity() -> None:
    own = np.array([[3.0, 4.0]])
    assert stability.max_sensitivity(own, np.stack([own, own + np.array([[0, 1.0]]), own * 2])) == 1.0
    assert stability.max_sensitivity(own, own[None]) == 0
    assert math.isnan(stability.max_sensitivity(0 * own, own[None]))


def test_relative_input_stability() -> None:
    """The map changes by 100 % in one of two places, the input by 10 % in both."""
    own, x = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    found = stability.relative_input_stability(own, np.array([[1.0, 4.0]]), x, np.array([[1.1, 0.9]]))
    assert found == pytest.approx(1 / (0.1 * math.sqrt(2)))
    assert stability.relative_input_stability(own, own[None], x, x[None]) == 0


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [(np.diag([6.0, 2.0, 1.0]), 3.0), (np.ones((3, 4)), math.inf), (np.eye(3), 1.0), (np.ones((3, 1)), math.inf)],
)
def test_singular_ratio(matrix: np.ndarray, expected: float) -> None:
    found = spectra.ratio(matrix)
    assert found == pytest.approx(expected) or (expected == math.inf and found > 1e12)


def test_between_has_the_singular_values_of_a_product_of_roots() -> None:
    """For diagonal matrices T = √(S_l S_{l+1}), wherever the bases agree."""
    lower, upper = np.diag([4.0, 1.0]), np.diag([9.0, 4.0])
    assert sorted(np.linalg.svd(spectra.between(lower, upper))[1]) == pytest.approx([2.0, 6.0])
    assert spectra.between(np.ones((3, 2)), np.ones((2, 5))).shape == (2, 2)


# 1 - mean |cos| after so many products, with the diagonal, median of 20 runs; from an independent implementation.
PUBLISHED = {
    "vanilla": {0: 0.92, 1: 0.91, 4: 0.88, 8: 0.85, 12: 0.81, 15: 0.74, 16: 0.45},
    "relu": {1: 0.64, 2: 0.48, 4: 0.30, 8: 0.16, 12: 0.10, 16: 0.046},
    "stochastic": {1: 0.62, 2: 4e-3, 3: 6e-7, 4: 6e-10, 5: 7e-13},
    "positive": {1: 0.63, 2: 5e-3, 3: 8e-7, 4: 9e-10, 5: 1e-12},
    "alpha1beta0": {1: 0.78, 2: 5e-2, 3: 5e-5, 4: 2e-7, 5: 9e-10, 6: 4e-12},
    "alpha2beta1": {1: 0.90, 2: 0.28, 3: 1.5e-2, 4: 5e-4, 5: 1.5e-5, 6: 4e-7, 8: 3e-10},
    "alpha3beta2": {1: 0.91, 2: 0.56, 3: 0.10, 4: 0.023, 6: 2e-4, 8: 1e-6},
    "alpha5beta4": {2: 0.83, 3: 0.36, 4: 0.16, 6: 0.026, 8: 1.9e-3},
    "alpha10beta9": {2: 0.91, 4: 0.83, 8: 0.75, 12: 0.70, 16: 0.44},
}
SMALL = ((100, 400), (400, 400), (400, 50), *[(50, 50)] * 5)


@pytest.mark.parametrize(("name", "limit"), [("vanilla", 0.5), ("alpha1beta0", 1e-4), ("positive", 1e-9)])
def test_small_chain(name: str, limit: float) -> None:
    """Non-negative matrices converge, others do not."""
    vectors, weights = spectra.drawn(np.random.default_rng(0), SMALL)
    last = list(spectra.chain_convergence(spectra.CHAINS[name], vectors, weights))[-1]
    assert last > limit if name == "vanilla" else last < limit


def test_diagonal_is_counted_as_the_released_code_counts_it() -> None:
    """528 pairs instead of 496, of which 32 are 1."""
    vectors, weights = spectra.drawn(np.random.default_rng(0), SMALL[:1])
    with_, without = (
        next(spectra.chain_convergence(spectra.CHAINS["vanilla"], vectors, weights, diagonal=diagonal))
        for diagonal in (True, False)
    )
    assert with_ == pytest.approx(without * 496 / 528)


@pytest.mark.heavy
def test_chains_of_the_paper() -> None:
    """Published medians lie within the spread of 20 runs, widened by what two published digits leave open."""
    runs: dict[str, list[list[float]]] = {name: [] for name in PUBLISHED}
    for seed in range(20):
        vectors, weights = spectra.drawn(np.random.default_rng(seed))
        for name, kept in runs.items():
            kept.append(list(spectra.chain_convergence(spectra.CHAINS[name], vectors, weights, diagonal=True)))
    outside = list[str]()
    for name, kept in runs.items():
        values = np.array(kept)
        for step, published in PUBLISHED[name].items():
            low, high = values[:, step].min() * 0.9, values[:, step].max() * 1.1
            outside += [] if low <= published <= high else [f"{name} {step}: {published}, not {low:.2g}..{high:.2g}"]
    assert not outside


def test_intervals() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    found = estimate(values)
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 / math.sqrt(400), rel=0.15)
    assert estimate(np.array([1.0, math.nan])).samples == 1
    assert math.isnan(estimate(np.array([1.0])).low)
    assert estimate(np.array([2.0, 2.0, 2.0])).low == 2.0


def test_root_answers() -> None:
    """The class reads the first pixel alone: the signal answers all, the root nothing; swapped, the other way round."""
    weights = torch.tensor([[2.0, 0.0], [0.0, 0.25]])
    x, targets = torch.tensor([[3.0, 1.0]]), torch.tensor([0])
    signal = torch.tensor([[3.0, 0.0]])
    for given, (root, rest) in ((signal, (0.0, 6.0)), (x - signal, (6.0, 0.0))):
        found = roots.answers(lambda shown: shown @ weights.T, x, given, targets)
        values = {name: (float(score), bool(kept)) for name, (score, kept) in found.items()}
        assert values == {"x": (6.0, True), "root": (root, root > 0), "signal": (rest, rest > 0)}


SLOPES = torch.tensor([0.6, 0.8, 0.0])


@pytest.mark.parametrize(
    ("relevance", "radius", "expected"),
    [
        ((0, 1, 0), 9.0, 3),  # 1.4 - 0.64 k < 0
        ((1, 0, 0), 9.0, 4),  # 1.4 - 0.36 k < 0
        ((0, 0, 1), 9.0, None),  # nobody reads this pixel
        ((0, 1, 0), 1.7, None),  # 1.4 - 0.8 * 1.7 > 0
        ((0, 1, 0), 1.8, 3),  # 1.4 - 0.8 * 1.8 < 0
    ],
)
def test_guided_attack(relevance: tuple[float, ...], radius: float, expected: int | None) -> None:
    """f = w · x for the class, 0 for the other; |w| = 1, so a step moves the pixel by its weight."""
    image = torch.ones(1, 1, 1, 3)
    found = attack.guided_attack(
        lambda x: torch.cat([x.flatten(1) @ SLOPES[:, None], torch.zeros(1, 1)], 1),
        lambda _x: torch.tensor(relevance, dtype=torch.float32).reshape(1, 1, 1, 3),
        image,
        0,
        6,
        radius=radius,
        bounds=(-9.0, 9.0),
        share=1 / 3,
    )
    assert found == expected


def test_guided_attack_asks_for_the_map_of_what_it_has_made() -> None:
    """The map points at the pixel that is largest now: the second, twice the first, the second again."""
    seen = list[list[float]]()

    def largest(x: Tensor) -> Tensor:
        seen.append(x.flatten().tolist())
        return x

    scores = lambda x: torch.cat([x.flatten(1) @ SLOPES[:2, None], torch.zeros(1, 1)], 1)  # noqa: E731
    image = torch.tensor([1.0, 1.0001]).reshape(1, 1, 1, 2)
    assert attack.guided_attack(scores, largest, image, 0, 9, radius=9.0, bounds=(-9.0, 9.0), share=0.5) == 4
    assert attack.guided_attack(scores, largest, -image, 0, 9, radius=9.0, bounds=(-9.0, 9.0), share=0.5) == 0
    np.testing.assert_allclose(seen, [[1, 1.0001], [1, 0.2001], [0.4, 0.2001], [-0.2, 0.2001]], atol=1e-5)
