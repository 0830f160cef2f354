"""Why relevances converge: products of matrices, and how fast they come to have one direction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

VGG16_SHAPES: Final = (
    (1000, 4096), (4096, 4096), (4096, 512), *[(512, 512)] * 5, (512, 256), *[(256, 256)] * 2, (256, 128), (128, 128),
    (128, 64), (64, 64), (64, 3),
)  # fmt: skip
"""Of VGG-16's layers seen at one place, from the top: (outputs, inputs)."""


def ratio(matrix: Matrix) -> float:
    """σ1 / σ2: infinite for a matrix of rank 1, 1 for one that turns and scales.

    Source: Sixt et al. 2020, figure 3.
    """
    values = np.linalg.svd(matrix, compute_uv=False)
    return float("inf") if len(values) < 2 or values[1] == 0 else float(values[0] / values[1])


def between(lower: Matrix, upper: Matrix) -> Matrix:
    """T = √S_l (V_l U_{l+1}) √S_{l+1}: what of two layers' products is kept, M = U S V.

    Source: Sixt et al. 2020, figure 3c.

    Args:
        lower: M_l, (inputs, outputs).
        upper: M_{l+1}, (outputs, further outputs).
    """
    _, s_lower, v_lower = np.linalg.svd(lower)
    u_upper, s_upper, _ = np.linalg.svd(upper)
    return _padded_root(s_lower, len(v_lower))[:, None] * (v_lower @ u_upper) * _padded_root(s_upper, len(u_upper))


def _padded_root(values: Matrix, size: int) -> Matrix:
    return np.sqrt(np.pad(values, (0, size - len(values))))


@dataclass(frozen=True)
class Chain:
    """One case of the simulation: how random weights become the matrix that relevance is multiplied by.

    Attributes:
        name: as in the paper.
        prepare: N(0, 1) weights -> the matrix.
        rectified: negative entries of every product are set to 0.
    """

    name: str
    prepare: Callable[[Matrix], Matrix]
    rectified: bool = False


def _same(weights: Matrix) -> Matrix:
    return weights


def _stochastic(weights: Matrix) -> Matrix:
    positive = np.abs(weights)
    return positive / positive.sum(0)


def _alpha_beta(alpha: float, weights: Matrix) -> Matrix:
    return alpha * np.maximum(weights, 0) + (alpha - 1) * np.minimum(weights, 0)


CHAINS: Final[Mapping[str, Chain]] = {
    chain.name: chain
    for chain in (
        Chain("vanilla", _same),
        Chain("relu", _same, rectified=True),
        Chain("stochastic", _stochastic),
        Chain("positive", np.abs),
        *(Chain(f"alpha{a}beta{a - 1}", partial(_alpha_beta, a)) for a in (1, 2, 3, 5, 10)),
    )
}


def drawn(
    rng: np.random.Generator, shapes: Sequence[tuple[int, int]] = VGG16_SHAPES, vectors: int = 32
) -> tuple[Matrix, list[Matrix]]:
    """N(0, 1) relevance vectors, (vectors, outputs), and N(0, 1) weights in the order of the products."""
    return rng.standard_normal((vectors, shapes[0][0])), [rng.standard_normal(shape) for shape in shapes]


def chain_convergence(
    chain: Chain, vectors: Matrix, weights: Sequence[Matrix], *, diagonal: bool = False
) -> Iterator[float]:
    """1 - mean |cos| of all pairs of vectors after 0, 1, 2, ... products with the matrices that weights become.

    Source: Sixt et al. 2020, appendix B.

    Args:
        chain: the case.
        vectors: relevance, one row a vector.
        weights: (outputs, inputs) of every layer, from the top.
        diagonal: also count every vector's cosine with itself, as the released code does: it takes 2 / (vectors + 1)
            from the value, 0.06 for 32.
    """
    rows = vectors
    yield _spread(rows, diagonal=diagonal)
    for matrix in weights:
        rows = rows @ chain.prepare(matrix)
        rows = np.maximum(rows, 0) if chain.rectified else rows
        rows = rows / (np.abs(rows).max() or 1.0)  # directions stay, and nothing overflows
        yield _spread(rows, diagonal=diagonal)


def _spread(rows: Matrix, *, diagonal: bool) -> float:
    with np.errstate(invalid="ignore"):
        directions = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = np.tril_indices(len(rows), 0 if diagonal else -1)
    return float(np.nanmean(1 - np.abs(directions @ directions.T)[pairs]))
