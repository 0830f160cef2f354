"""Embeddings: where an index becomes a value."""

from __future__ import annotations

from typing import Self

from torch.fx import Node

from passes.graphs.emitter import Emitter, Value
from passes.graphs.nodes import argument
from passes.operators.call import Active, Adjoints, Call


class EmbeddingCall(Call):
    """`y = W[ids] = onehot(ids) W`: ids (N, ...) of integers, W (vocabulary, D), y (N, ..., D)."""

    kind = "embedding"

    @classmethod
    def view(cls, node: Node, emit: Emitter, active: Active, /) -> Self | None:
        """The table is stored; the indices are an explained input."""
        table, indices = argument(node, "weight"), argument(node, "indices")
        return cls(node, emit, (indices,)) if active(indices) and not active(table) else None

    def adjoint(self, multiplier: Value) -> Adjoints:
        """The multiplier of the one entry of onehot(ids) that is 1, (N, ...): relevance and multiplier are the same."""
        return ((multiplier * self.output).sum([-1]),)
