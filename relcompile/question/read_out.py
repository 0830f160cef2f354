"""What the user gets from the messages that arrive at the place where relevance is read, one message a walk."""

from __future__ import annotations

from passes.graphs.emitter import Value, aten
from passes.relevance.messages import Message
from passes.relevance.stabilise import without_zeros

_INTERPOLATIONS = (aten.upsample_linear1d.vec, aten.upsample_bilinear2d.vec, aten.upsample_trilinear3d.vec)


def contrast(of_target: Message, of_others: Message) -> Value:
    """Contrastive LRP: what speaks for the target more than for all other classes.

    Equation: R = max(0, n(R(y_k)) - n(R(y_¬k))), y_k = y ⊙ onehot(k), y_¬k = y ⊙ (1 - onehot(k)), n(R) = R / Σ R, the
        sum over a sample. The scores of the other classes may cancel: n is not stabilised.
    Source: Sixt et al. 2020, section 5; Gu et al. 2018.
    """
    return (_normalised(of_target.relevance) - _normalised(of_others.relevance)).positive


def activation_map(at_map: Message, x: Value) -> Value:
    """Grad-CAM: the channels of a feature map A, weighted by their mean gradients m, at the size of the input x.

    Equation: R = upsample(max(0, Σ_c w_c A_c)), w_c = mean of m_c over all places; linear interpolation, corners
        not aligned.
    Shapes: A and m (N, C, h...), x (N, C', H...), R (N, 1, H...).
    Source: Selvaraju et al. 2017, equations 1 and 2.
    """
    A, m = at_map.at, at_map.multiplier
    places = list(range(2, A.ndim))
    weights = A.emit.call(aten.mean.dim, m, places, True)
    coarse = (A * weights).sum([1], keepdim=True).positive
    return A.emit.call(_INTERPOLATIONS[len(places) - 1], coarse, list(x.shape[2:]), False, None)


def _normalised(relevance: Value) -> Value:
    return relevance / without_zeros(relevance.sum(range(1, relevance.ndim), keepdim=True))
