"""How much slower than the plain forward pass are explanations of attention and of recurrent cells?

ViT-B/16, an encoder of MiniLM's sizes and BERT-base at 128 tokens, and an LSTM, all with random weights. As in
`benchmarks.speed` every rule runs in turns with the forward pass in one process in ONNX Runtime on the CPU. "limit" is
what is aimed at, "compile s" compiling and exporting together. The LSTM's forward pass is unrolled, as its explanation
is.

    python -m benchmarks.sequences --json sequences.json
    python -m benchmarks.sequences --small --rounds 2    # everything once, in a minute
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from benchmarks.speed import Row, compare, reported, show
from passes.errors import PassError
from relcompile.errors import RelcompileError


@dataclass(frozen=True)
class Subject:
    """A network, an input, and the time over the forward pass that is aimed at, by rule."""

    build: Callable[[bool], tuple[nn.Module, Tensor]]
    aims: Mapping[str, float | None]


class OfTokens(nn.Module):
    """(N, T) token ids to the scores of a classifier of transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.model(input_ids=input_ids).logits


class UnrolledLSTM(nn.Module):
    """(N, T, D) to the scores of the last hidden state, step by step."""

    def __init__(self, inputs: int, cells: int) -> None:
        super().__init__()
        self.of_input, self.of_state = nn.Linear(inputs, 4 * cells), nn.Linear(cells, 4 * cells)
        self.head, self.cells = nn.Linear(cells, 5), cells

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], self.cells)
        for step in x.unbind(1):
            i, f, g, o = (self.of_input(step) + self.of_state(h)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


def _vit(small: bool) -> tuple[nn.Module, Tensor]:
    size, layers, heads, width = (32, 2, 2, 16) if small else (224, 12, 12, 768)
    model = VisionTransformer(size, 16, layers, heads, width, 4 * width)
    for parameter in model.heads.parameters():
        nn.init.normal_(parameter, std=0.02)  # they start with zeros
    return model, torch.randn(1, 3, size, size)


def _bert(width: int, layers: int, small: bool) -> tuple[nn.Module, Tensor]:
    from transformers import BertConfig, BertForSequenceClassification

    width, layers, tokens = (24, 1, 8) if small else (width, layers, 128)
    sizes: dict[str, Any] = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    model: Any = BertForSequenceClassification(BertConfig(**sizes, num_attention_heads=12))
    return OfTokens(model), torch.randint(1000, 30000, (1, tokens))


def _lstm(small: bool) -> tuple[nn.Module, Tensor]:
    inputs, cells, steps = (3, 4, 5) if small else (128, 256, 32)
    return UnrolledLSTM(inputs, cells), torch.randn(1, steps, inputs)


SUBJECTS: Final[Mapping[str, Subject]] = {
    "ViT-B/16": Subject(_vit, {"attnlrp": 2.4, "cp-lrp": 2.1, "gamma": 4.6}),
    "MiniLM, 128 tokens": Subject(lambda small: _bert(384, 6, small), {"attnlrp": 2.4}),
    "LSTM, 32 steps": Subject(_lstm, {"attnlrp": 1.6, "epsilon": None}),
    "BERT-base, 128 tokens": Subject(lambda small: _bert(768, 12, small), {"attnlrp": None}),
}


def measured(name: str, small: bool, rounds: int, threads: int) -> list[Row]:
    """The rows of one network: every rule, in turns with the forward pass; a rule that fails is told and left out."""
    torch.manual_seed(0)
    subject = SUBJECTS[name]
    model, x = subject.build(small)
    rows = list[Row]()
    for rule, aim in subject.aims.items():
        try:
            forward, explained = compare(name, model.eval(), x, [rule], rounds, threads)
        except (RelcompileError, PassError) as error:
            print(f"{name}, {rule}: {str(error).splitlines()[0]}")
        else:
            rows += [forward, replace(explained, limit=aim)]
    return rows


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    parser.add_argument("--small", action="store_true", help="networks of a few units: does it run?")
    parser.add_argument("--rounds", type=int, default=15, help="timed rounds")
    parser.add_argument("--threads", type=int, default=1, help="of one operator")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    options = parser.parse_args(arguments)
    rest = {"small": options.small, "rounds": options.rounds, "threads": options.threads}
    return reported(options.networks, partial(measured, **rest), show, options.json)


if __name__ == "__main__":
    main()
