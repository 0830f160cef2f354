"""AttnLRP and CP-LRP in the textbook relevance form: every step divides by what it shares out. Float64, no stabiliser.

A step runs forwards and returns its value and `back`: from relevance at the value to one relevance per operand.
Written from Achtibat et al. 2024 (propositions 3.1, 3.3, 3.4, equation 8) and Ali et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Step = tuple[Tensor, Callable[[Tensor], tuple[Tensor, ...]]]
Method = Literal["attnlrp", "cp-lrp"]
Mean = Literal["live", "held"]


def linear(x: Tensor, W: Tensor, b: Tensor | None) -> Step:
    """R_j = Σ_k x_j w_kj / z_k R_k."""
    z = functional.linear(x, W, b)
    return z, lambda R: (x * torch.einsum("...k,kj->...j", R / z, W),)


def add(a: Tensor, b: Tensor) -> Step:
    """R_a = a / (a + b) R, and the same for b; broadcast summands collect what their copies get."""
    z = a + b
    return z, lambda R: tuple((part * R / z).sum_to_size(part.shape) for part in (a, b))


def activation(z: Tensor, f: Callable[[Tensor], Tensor]) -> Step:
    """R_z = R_y."""
    return f(z), lambda R: (R,)


def layer_norm(x: Tensor, norm: nn.LayerNorm, mean: Mean) -> Step:
    """y = w (x - μ) / σ + b with σ a constant: R_j = Σ_k x_j ∂y_k/∂x_j / y_k R_k; μ a constant or Σ_j x_j / n."""
    y = norm(x)
    n, w, sigma = x.shape[-1], norm.weight, (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()
    identity, ones = torch.eye(n, dtype=x.dtype), torch.full((n, n), 1 / n, dtype=x.dtype)
    slope = w[:, None] * (identity - (ones if mean == "live" else 0 * ones))
    return y, lambda R: (x * torch.einsum("...k,kj->...j", R / y / sigma, slope),)


def rms_norm(x: Tensor, w: Tensor, epsilon: float) -> Step:
    """Identity: R_x = R_y."""
    return w * x / (x.square().mean(-1, keepdim=True) + epsilon).sqrt(), lambda R: (R,)


def softmax(x: Tensor, method: Method) -> Step:
    """R_i = x_i (R_i - s_i Σ_j R_j), 0 where x_i is -inf; under CP-LRP nothing passes."""
    s = x.softmax(-1)
    finite = x.nan_to_num(neginf=0.0)

    def back(R: Tensor) -> tuple[Tensor, ...]:
        return (finite * (R - s * R.sum(-1, keepdim=True)) if method == "attnlrp" else torch.zeros_like(R),)

    return s, back


def matmul(a: Tensor, b: Tensor, share: float) -> Step:
    """R of a single product a_ik b_kj in o_ij: `share` to a and the rest to b."""
    o = a @ b

    def back(R: Tensor) -> tuple[Tensor, ...]:
        s = R / o
        of_a, of_b = a * (s @ b.transpose(-1, -2)), b * (a.transpose(-1, -2) @ s)
        return (share * of_a).sum_to_size(a.shape), ((1 - share) * of_b).sum_to_size(b.shape)

    return o, back


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, method: Method) -> Step:
    """`softmax(q kᵀ / √d + mask) v`: the softmax by its Taylor expansion and halves of products, or A constant."""
    scores, back_scores = matmul(q, k.transpose(-1, -2), 0.5)
    scaled = scores / q.shape[-1] ** 0.5
    weights, back_weights = softmax(scaled if mask is None else scaled + mask, method)
    out, back_out = matmul(weights, v, 0.5 if method == "attnlrp" else 0.0)

    def back(R: Tensor) -> tuple[Tensor, ...]:
        R_weights, R_v = back_out(R)
        (R_scores,) = back_weights(R_weights)
        finite = torch.zeros_like(scaled) if mask is None else mask.nan_to_num(neginf=0.0).expand_as(scaled)
        # What is added to the scores takes its share; a masked score has none.
        R_scores = R_scores * torch.where(scaled + finite == 0, 0, scaled / (scaled + finite))
        R_q, R_k = back_scores(R_scores)
        return R_q, R_k.transpose(-1, -2), R_v

    return out, back


def heads(x: Tensor, count: int) -> Tensor:
    """(N, T, D) -> (N, count, T, D / count)."""
    return x.unflatten(-1, (count, -1)).transpose(1, 2)


def merged(x: Tensor) -> Tensor:
    """The inverse of `heads`."""
    return x.transpose(1, 2).flatten(2)


def self_attention(x: Tensor, module: nn.MultiheadAttention, method: Method) -> Step:
    """Q, K and V from one value, without a mask."""
    count = module.num_heads
    parts = zip(module.in_proj_weight.chunk(3), module.in_proj_bias.chunk(3), strict=True)
    projected = [linear(x, W, b) for W, b in parts]
    q, k, v = (heads(value, count) for value, _ in projected)
    mixed, back_mixed = attend(q, k, v, None, method)
    out, back_out = linear(merged(mixed), module.out_proj.weight, module.out_proj.bias)

    def back(R: Tensor) -> tuple[Tensor, ...]:
        shares = back_mixed(heads(back_out(R)[0], count))
        return (
            sum((b(merged(share))[0] for (_, b), share in zip(projected, shares, strict=True)), torch.zeros_like(x)),
        )

    return out, back


def chain(x: Tensor, *steps: Callable[[Tensor], Step]) -> Step:
    """One step after the other."""
    backs = []
    for step in steps:
        x, back = step(x)
        backs.append(back)

    def through(R: Tensor) -> tuple[Tensor, ...]:
        for back in reversed(backs):
            (R,) = back(R)
        return (R,)

    return x, through


def residual(x: Tensor, *steps: Callable[[Tensor], Step]) -> Step:
    """X + steps(x)."""
    branch, back_branch = chain(x, *steps)
    y, back_sum = add(x, branch)

    def back(R: Tensor) -> tuple[Tensor, ...]:
        R_x, R_branch = back_sum(R)
        return (R_x + back_branch(R_branch)[0],)

    return y, back


def encoder_layer(x: Tensor, layer: nn.TransformerEncoderLayer, method: Method, mean: Mean) -> Step:
    """`nn.TransformerEncoderLayer`, the norm before or after the sum."""
    attention = lambda x: self_attention(x, layer.self_attn, method)  # noqa: E731
    mlp = [
        lambda x: linear(x, layer.linear1.weight, layer.linear1.bias),
        lambda z: activation(z, layer.activation),
        lambda x: linear(x, layer.linear2.weight, layer.linear2.bias),
    ]
    first, second = (lambda x, n=n: layer_norm(x, n, mean) for n in (layer.norm1, layer.norm2))
    if layer.norm_first:
        return chain(x, lambda x: residual(x, first, attention), lambda x: residual(x, second, *mlp))
    return chain(x, lambda x: residual(x, attention), first, lambda x: residual(x, *mlp), second)


def explain_encoder(
    layers: Sequence[nn.TransformerEncoderLayer], head: nn.Linear, x: Tensor, target: Tensor, method: Method, mean: Mean
) -> Tensor:
    """Relevance (N, T, D) of the target's score in `head(mean over tokens of the last layer)`."""
    steps = [lambda x, layer=layer: encoder_layer(x, layer, method, mean) for layer in layers]
    y, back = chain(x, *steps)
    pooled = y.mean(1)
    scores, back_head = linear(pooled, head.weight, head.bias)
    onehot = functional.one_hot(target, scores.shape[1])
    (R,) = back_head(onehot * scores)
    return back(y * (R / pooled)[:, None] / y.shape[1])[0]
