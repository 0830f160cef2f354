"""Recurrent layers, step by step: the length of the sequence is that of the example."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from relcompile.frontend.onnx.node import Node

Cell = Callable[..., tuple[Tensor, ...]]


def refusal(node: Node) -> str | None:
    """What these functions do not compute."""
    usual = {("Sigmoid", "Tanh", "Tanh"), ("Sigmoid", "Tanh"), ("Tanh",), ("Relu",)}
    given = tuple(node.attributes.get("activations", ()))
    directions = 2 if node.attributes.get("direction") == "bidirectional" else 1
    if given and (len(given) % directions or given[: len(given) // directions] * directions != given):
        return "its directions have different activations"
    if given and given[: len(given) // directions] not in usual:
        return f"its activations are {', '.join(map(str, given))}"
    odd = [name for name in ("clip", "input_forget", "layout") if node.attributes.get(name)]
    odd += ["sequence_lens"] * bool(node.inputs[4:5] and node.inputs[4]) + ["peepholes"] * bool(
        node.inputs[7:8] and node.inputs[7]
    )
    return f"it has {', '.join(odd)}" if odd else None


def lstm(node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, *states: Any) -> tuple[Tensor, ...]:
    """X (T, N, inputs) -> (T, directions, N, units), the last h and the last c."""
    return _layer(node, _lstm_cell, 2, x, w, r, b, states[1:])


def gru(node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, *states: Any) -> tuple[Tensor, ...]:
    """X (T, N, inputs) -> (T, directions, N, units) and the last h."""
    return _layer(node, _gru_cell, 1, x, w, r, b, states[1:])


def rnn(node: Node, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None = None, *states: Any) -> tuple[Tensor, ...]:
    """X (T, N, inputs) -> (T, directions, N, units) and the last h."""
    return _layer(node, _rnn_cell, 1, x, w, r, b, states[1:])


def _layer(
    node: Node, cell: Cell, count: int, x: Tensor, w: Tensor, r: Tensor, b: Tensor | None, states: tuple[Any, ...]
) -> tuple[Tensor, ...]:
    """Every direction, one beside the other."""
    units, kind = r.shape[-1], node.text("direction", "forward")
    backwards = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[kind]
    runs = list[tuple[Tensor, ...]]()
    for d, reverse in enumerate(backwards):
        zero = x.new_zeros((x.shape[1], units))
        first = tuple(states[k][d] if len(states) > k and states[k] is not None else zero for k in range(count))
        bias = x.new_zeros(2 * w.shape[1]) if b is None else b[d]
        runs.append(_direction(node, cell, x, w[d], r[d], bias, first, reverse))
    sequences, *last = zip(*runs, strict=True)
    return (_stacked(sequences, 1), *(_stacked(same, 0) for same in last))


def _stacked(parts: Sequence[Tensor], axis: int) -> Tensor:
    """Along a new axis; `torch.stack` is taken apart into a concatenation along the batch."""
    return torch.cat([part.unsqueeze(axis) for part in parts], axis)


def _direction(
    node: Node, cell: Cell, x: Tensor, w: Tensor, r: Tensor, b: Tensor, state: tuple[Tensor, ...], reverse: bool
) -> tuple[Tensor, ...]:
    given = functional.linear(x, w, b[: w.shape[0]])  # of all steps at once
    steps, seen = range(x.shape[0]), list[Tensor]()
    for t in reversed(steps) if reverse else steps:
        state = cell(node, given[t], r, b[w.shape[0] :], *state)
        seen.append(state[0])
    return (_stacked(seen[::-1] if reverse else seen, 0), *state)


def _lstm_cell(_node: Node, given: Tensor, r: Tensor, b: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    i, o, f, g = (given + functional.linear(h, r, b)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru_cell(node: Node, given: Tensor, r: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    z_x, r_x, n_x = given.chunk(3, -1)
    (z_w, r_w, n_w), (z_b, r_b, n_b) = r.chunk(3), b.chunk(3)
    update, reset = (
        torch.sigmoid(z_x + functional.linear(h, z_w, z_b)),
        torch.sigmoid(r_x + functional.linear(h, r_w, r_b)),
    )
    if node.integer("linear_before_reset", 0):
        new = torch.tanh(n_x + reset * functional.linear(h, n_w, n_b))
    else:
        new = torch.tanh(n_x + functional.linear(reset * h, n_w, n_b))
    return ((1.0 - update) * new + update * h,)


def _rnn_cell(node: Node, given: Tensor, r: Tensor, b: Tensor, h: Tensor) -> tuple[Tensor, ...]:
    z = given + functional.linear(h, r, b)
    return (torch.relu(z) if "Relu" in node.attributes.get("activations", ()) else torch.tanh(z),)
