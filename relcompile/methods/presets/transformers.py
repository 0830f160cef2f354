"""Attention, norms and gates: methods that are tables over three primitives, hold, half and secant.

With R = x ⊙ m an activation's multiplier is its secant f(x) / x, a held operand gets nothing while its sibling gets the
exact adjoint, and the factors of a product get half of it each. All else is the exact adjoint.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from relcompile.errors import CompositeError
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.presets.lrp import ENDS, GATE, PASS
from relcompile.methods.results import AsMultiplier
from relcompile.methods.rules.adjoint import Adjoint
from relcompile.methods.rules.affine import Epsilon
from relcompile.methods.rules.pointwise import PassThrough
from relcompile.methods.rules.products import Half, Hold, Stop
from relcompile.methods.starts import Cotangent

Mean: TypeAlias = Literal["live", "held"]
Gates: TypeAlias = Literal["held", "half"]

_STATISTIC: Final = Entry(Hold("statistic"), role="statistic")
_ACTIVATION: Final = Entry(PassThrough(), kind="activation")
_ATTENTION_WEIGHTS: Final = Entry(Stop(), kind="softmax", role="attention")


def attn_lrp(mean: Mean = "live") -> Composite:
    """AttnLRP: the softmax by its Taylor expansion, products of two values by halves, norms with held statistics.

    Args:
        mean: "live": the mean of a layer norm is part of the linear map (LXT); "held": it is a constant, as the
            deviation is (proposition 3.4).
    Equation: softmax R_i = x_i (R_i - s_i Σ_j R_j), its exact Jacobian as a multiplier; products R_a = R_b = R / 2
    Conserves: up to what biases and softmaxes absorb.
    Use: for transformers, in two forward passes; on vision transformers with γ on their linear layers.
    Source: Achtibat et al. 2024.
    """
    entries = (*ENDS, _STATISTIC, *_means(mean), GATE, Entry(Half(), kind="product"), _ACTIVATION)
    return Composite("attnlrp", (*entries, Entry(Adjoint())))


def cp_lrp(mean: Mean = "live") -> Composite:
    """CP-LRP: attention weights, gates and the statistics of norms are constants: what is left is linear.

    Args:
        mean: as in `attnlrp`.
    Conserves: up to what biases absorb.
    Use: for transformers where what was attended to matters, and not why.
    Source: Ali et al. 2022.
    """
    entries = (*_attention_held(mean), Entry(Hold("switch"), role="switch"), Entry(Half(), kind="product"))
    return Composite("cp-lrp", (*entries, _ACTIVATION, _ATTENTION_WEIGHTS, Entry(Adjoint())))


def rel_p(mean: Mean = "live") -> Composite:
    """RelP: the multipliers of relevance, in place of gradients in attribution patching.

    Args:
        mean: as in `attnlrp`.
    Equation: attention weights and statistics held, gated products by halves; the score of a patch is (a' - a) ⊙ m
    Use: to predict what patching an activation would change, at a layer (`--at`).
    Conserves: no; x ⊙ m is conserved up to what biases absorb.
    Source: Jafari et al. 2025.
    """
    entries = (*_attention_held(mean), Entry(Half(), kind="product"), _ACTIVATION)
    closing = (_ATTENTION_WEIGHTS, Entry(Adjoint()))
    return Composite("relp", (*entries, *closing), start=Cotangent(), result=AsMultiplier())


def lstm(gates: Gates = "held", epsilon: float = 1e-3) -> Composite:
    """LRP of gated recurrent cells: LRP-ε on their linear maps, and the gates are constants.

    Args:
        gates: "held": of a gated product the signal takes all (LRP-all); "half": gate and signal get half (LRP-half).
        epsilon: of the linear maps; its unit is that of their outputs.
    Equation: y = g s: R_s = R_y, R_g = 0; or R_s = R_g = R_y / 2
    Conserves: up to what biases and ε absorb; halves lose more of it, to the biases of gates.
    Use: for LSTMs and GRUs; `attnlrp` holds gates, too, without an ε.
    Source: Arras et al. 2017; Arras et al. 2019, section 2.2.
    """
    if gates not in ("held", "half"):
        raise CompositeError(f"gates={gates!r} must be held or half")
    halves = (Entry(Half(), kind="product", role="gate"),) if gates == "half" else ()
    return Composite("lstm", (*halves, Entry(Epsilon(epsilon), kind="affine"), *PASS))


def _attention_held(mean: Mean) -> tuple[Entry, ...]:
    return (*ENDS, _STATISTIC, *_means(mean), Entry(Hold("attention"), role="attention"), GATE)


def _means(mean: Mean) -> tuple[Entry, ...]:
    if mean not in ("live", "held"):
        raise CompositeError(f"mean={mean!r} must be live or held")
    return (Entry(Hold("mean"), role="mean"),) if mean == "held" else ()
