"""A module of one's own, and a rule of one's own for it.

A `Downmix` adds up microphones with learned weights. LRP shares its relevance in proportion to what each microphone
contributes, and where two of them cancel these shares explode. The rule `ByEnergy` shares by the energy of the
contributions instead; everything else is LRP-ε.

    pip install 'relcompile[cpu]'
    cd examples
    python custom_rule.py --folder out

The script compiles in Python (`rules=`); the command that it prints and runs does the same with `--plugin`.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

import relcompile
from relcompile.cli.main import main as run
from relcompile.rules import AffineCall, Call, Form, Messages, Multiplier, Relevance


@dataclass(frozen=True)
class ByEnergy:
    """Relevance in proportion to the squares of the contributions.

    Equation: R_j = Σ_k (w_kj x_j)² / (Σ_i (w_ki x_i)² + ε) R_k
    Conserves: exactly, up to ε.
    """

    epsilon: float = 1e-12
    applies_to: ClassVar[tuple[type[Call], ...]] = (AffineCall,)
    reads: ClassVar[tuple[Form, ...]] = (Relevance,)

    def propagate(self, call: AffineCall, arriving: Relevance, /) -> Messages:
        """One message for the input of the layer: the m of R = x ⊙ m."""
        x, squares = call.x, call.weight * call.weight
        share = arriving.relevance / (call.apply(x * x, squares) + self.epsilon)
        return (Multiplier(x, x * call.transposed(share, squares)),)


class Downmix(nn.Conv1d):
    """Several microphones become one signal."""

    def __init__(self, microphones: int) -> None:
        super().__init__(microphones, 1, 1, bias=False)


ENTRIES = [relcompile.Entry(ByEnergy(), module_type="Downmix")]


def network() -> nn.Module:
    """Four microphones, two classes; random weights."""
    torch.manual_seed(0)
    head = (nn.Conv1d(1, 8, 9), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 2))
    return nn.Sequential(Downmix(4), *head)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("out"), help="where everything is written")
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    model, signal = network(), torch.randn(1, 4, 64)
    for name, rules in (("epsilon", []), ("epsilon and ByEnergy", ENTRIES)):
        explainer = relcompile.compile(model, signal, rule="epsilon", rules=rules)
        _, relevance = explainer(signal, 0)
        print(f"{name}: relevance of the microphones", [round(float(value), 3) for value in relevance.sum(2)[0]])
    torch.save(model.state_dict(), folder / "downmix.pt")
    words = [str(folder / "downmix.pt"), "--rule", "epsilon", "--arch", "custom_rule:network", "--input", "1x4x64"]
    words += ["--plugin", "custom_rule:ENTRIES", "-o", str(folder / "downmix.onnx")]
    print(f"\n$ relcompile {shlex.join(words)}\n", flush=True)
    run(words)


if __name__ == "__main__":
    main()
