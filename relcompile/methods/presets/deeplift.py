"""DeepLIFT: differences from a reference input."""

from __future__ import annotations

from passes.relevance.protocol.refuse import Refuse
from passes.relevance.protocol.rule import AnyRule
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets.lrp import SCORES
from relcompile.methods.rules.deeplift import Rescale, RevealCancel
from relcompile.methods.rules.differences import (
    AffineDifference,
    CrossTerms,
    EachPart,
    MatmulDifference,
    MaxDifference,
    SumOfDifferences,
)
from relcompile.methods.starts import Cotangent

_KEPT, _CROSSED = AffineDifference("kept"), MaxDifference("crossed")


def deeplift_rescale(reference: float = 0.0) -> Composite:
    """DeepLIFT Rescale: differences from a reference input, through the chords of activations.

    Use: where a reference says what absence looks like (a background, a neutral sequence), in three forward passes.
    """
    return deeplift("deeplift-rescale", Rescale(), reference=reference)


def deeplift_revealcancel(reference: float = 0.0) -> Composite:
    """DeepLIFT RevealCancel: positive and negative contributions apart.

    Use: as Rescale, where contributions of both signs cancel within a unit.
    """
    return deeplift("deeplift-revealcancel", RevealCancel(), reference=reference)


def deeplift_genomics(reference: float = 0.0) -> Composite:
    """DeepLIFT as its library does by default: RevealCancel after dense layers, Rescale after convolutions.

    Use: for the numbers of the deeplift library on genomic models.
    """
    dense = Entry(RevealCancel(), kind="activation", after="linear")
    return deeplift("deeplift-genomics", Rescale(), reference=reference).with_entries(dense)


def deeplift_ablation(cross_terms: CrossTerms, name: str, reference: float = 0.0) -> Composite:
    """DeepLIFT Rescale without the cross terms between positive and negative contributions.

    Equation: m_x = W⁺ᵀm where Δx ≠ 0, Wᵀm where Δx = 0 (-text: W⁺ᵀm where Δx > 0, W⁻ᵀm where Δx < 0)
    Conserves: no.
    Use: to reproduce that study.
    Source: Sixt et al. 2020, section 5: as their code has it, and (-text) as they describe it.
    """
    return deeplift(name, Rescale(), AffineDifference(cross_terms), reference=reference)


def deeplift(
    name: str,
    activations: AnyRule,
    affine: AnyRule = _KEPT,
    maxima: AnyRule = _CROSSED,
    *,
    reference: float = 0.0,
) -> Composite:
    """One of DeepLIFT's methods: its rule of activations, of affine layers and of maxima."""
    entries = (
        *SCORES,
        Entry(activations, kind="activation"),
        Entry(affine, kind="affine"),
        Entry(maxima),
        Entry(MatmulDifference()),
        Entry(SumOfDifferences(), kind="sum"),
        Entry(SumOfDifferences(), kind="product"),
        Entry(Refuse("an index has no reference that differences could be taken from"), kind="embedding"),
        *(Entry(EachPart(), kind=kind) for kind in ("pool", "shift", "scale", "structure")),
        Entry(Refuse("a product with a constant matrix has no parts of one sign"), kind="scale"),
    )
    return Composite(name, entries, start=Cotangent(), reference=reference)
