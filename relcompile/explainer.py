"""`Explainer`: the compiled graph as a PyTorch module, and the door to its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch.fx import GraphModule

from passes.runner import PassReport
from relcompile.metadata import Metadata


class Explainer(torch.nn.Module):
    """Prediction and relevance in one static graph, without autograd.

    Call it as `explainer(*inputs, target)`, where `target` is int64 (N,) if the target mode is "index", a float
    tensor of the output's shape if it is "seed", and absent otherwise. Methods that average over noisy copies then take
    standard normal numbers (N, copies, ...) for every explained input, and an explainer that was compiled with
    reference="input" a `reference` like the input. It returns the model's own outputs, then the relevance of every
    explained input, each in the shape of its input (of a layer: in that of its output); then, if it was asked for, the
    relevance that biases and stabilisers absorb, (N, operators), and the report on learned roots, (N, roots,
    quantities).

    Attributes:
        graph_module: the fx graph of aten operators.
        metadata: what is written into every exported file.
        examples: arguments by name, the batch on axis 0, that exports and self-checks run on.
        reports: what every pass did.
    """

    def __init__(
        self,
        graph_module: GraphModule,
        metadata: Metadata,
        examples: Mapping[str, torch.Tensor],
        reports: Sequence[PassReport] = (),
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.metadata = metadata
        self.examples = dict(examples)
        self.reports = tuple(reports)
        self.train(False)

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.graph_module(*arguments)

    def example_arguments(self, batch: int) -> tuple[torch.Tensor, ...]:
        """The examples, repeated or cut to `batch` samples."""
        return tuple(_of_batch(tensor, batch) for tensor in self.examples.values())

    def save(self, path: str | Path) -> None:
        """Write the explainer to `path`: .onnx, checked against this module in ONNX Runtime; or .pt2, for PyTorch.

        `torch.export.load(path).module()` runs a .pt2 file as this module.

        Raises:
            ExportError: the suffix is not known, the file cannot be written, or it does not agree.
        """
        from relcompile.export import save

        save(self, Path(path))


def _of_batch(tensor: torch.Tensor, batch: int) -> torch.Tensor:
    repeats = -(-batch // tensor.shape[0])
    return tensor.repeat([repeats] + [1] * (tensor.dim() - 1))[:batch].clone()
