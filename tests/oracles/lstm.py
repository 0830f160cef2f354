"""LRP of an LSTM by Arras et al. 2017: the signal takes all, gates get nothing; relevance form, float64, ε = 0."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def explain(lstm: nn.LSTM, x: Tensor, R_last: Tensor) -> Tensor:
    """Relevance (N, T, D) of the inputs of one layer in one direction, from that of its last hidden state (N, H)."""
    states = _forward(lstm, x)
    parameters = dict(lstm.named_parameters())
    W_x, W_h = (parameters[name].chunk(4)[2] for name in ("weight_ih_l0", "weight_hh_l0"))
    R_h, R_c, R_x = R_last, torch.zeros_like(R_last), []
    for t in reversed(range(x.shape[1])):
        h_before, c_before, f, i, g, z, c = states[t]
        R_c = R_c + R_h  # h = o tanh(c): the gate o gets nothing, tanh passes
        R_z = i * g / c * R_c  # c = f c' + i g: shares of the sum, the gates f and i get nothing, tanh passes
        R_c = f * c_before / c * R_c
        R_x.insert(0, x[:, t] * ((R_z / z) @ W_x))
        R_h = h_before * ((R_z / z) @ W_h)
    return torch.stack(R_x, 1)


def _forward(lstm: nn.LSTM, x: Tensor) -> list[tuple[Tensor, ...]]:
    """For each step: the hidden and cell state before, f, i, g, the pre-activation of g, and the cell state."""
    W_x, W_h, b_x, b_h = (p for _, p in lstm.named_parameters())
    h = c = torch.zeros(len(x), lstm.hidden_size, dtype=x.dtype)
    states = list[tuple[Tensor, ...]]()
    for t in range(x.shape[1]):
        pre = x[:, t] @ W_x.T + b_x + h @ W_h.T + b_h
        i, f, z, o = pre.chunk(4, 1)
        i, f, o, g = i.sigmoid(), f.sigmoid(), o.sigmoid(), z.tanh()
        new = f * c + i * g
        states.append((h, c, f, i, g, z, new))
        h, c = o * new.tanh(), new
    return states
