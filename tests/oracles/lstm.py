"""LRP of an LSTM by Arras et al., relevance form, float64, ε = 0: of a gated product the signal takes all, or half."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def explain(lstm: nn.LSTM, x: Tensor, R_last: Tensor, signal: float = 1.0) -> Tensor:
    """Relevance (N, T, D) of the inputs of one layer in one direction, from that of its last hidden state (N, H).

    Args:
        lstm: one layer, one direction, batch first.
        x: its inputs.
        R_last: relevance of its last hidden state.
        signal: what the signal gets of the relevance of a product; the gate gets the rest.
    """
    W_x, W_h, *_ = (p for _, p in lstm.named_parameters())
    states = _forward(lstm, x)
    R_h, R_c, R_x = R_last, torch.zeros_like(R_last), []
    for t in reversed(range(x.shape[1])):
        h_before, c_before, f, i, g, pre, c = states[t]
        R_o, R_c = (1 - signal) * R_h, R_c + signal * R_h  # h = o tanh(c): tanh passes
        R_kept, R_new = f * c_before / c * R_c, i * g / c * R_c  # c = f c' + i g: shares of the sum
        R_f, R_c = (1 - signal) * R_kept, signal * R_kept
        R_pre = torch.cat([(1 - signal) * R_new, R_f, signal * R_new, R_o], 1)  # i, f, g, o: sigmoids and tanh pass
        R_x.insert(0, x[:, t] * ((R_pre / pre) @ W_x))
        R_h = h_before * ((R_pre / pre) @ W_h)
    return torch.stack(R_x, 1)


def _forward(lstm: nn.LSTM, x: Tensor) -> list[tuple[Tensor, ...]]:
    """For each step: hidden and cell state before, f, i, g, the pre-activations of i, f, g and o, the cell state."""
    W_x, W_h, b_x, b_h = (p for _, p in lstm.named_parameters())
    h = c = torch.zeros(len(x), lstm.hidden_size, dtype=x.dtype)
    states = list[tuple[Tensor, ...]]()
    for t in range(x.shape[1]):
        pre = x[:, t] @ W_x.T + b_x + h @ W_h.T + b_h
        i, f, z, o = pre.chunk(4, 1)
        i, f, o, g = i.sigmoid(), f.sigmoid(), o.sigmoid(), z.tanh()
        new = f * c + i * g
        states.append((h, c, f, i, g, pre, new))
        h, c = o * new.tanh(), new
    return states
