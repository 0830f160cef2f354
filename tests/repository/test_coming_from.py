"""What the page says of zennit and captum: their calls and ours, side by side, give one map."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.compare import FLOAT64, assert_close

PAGE = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text(encoding="utf-8")


class Network(nn.Module):
    """Modules alone, each used once: what libraries with hooks see."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU())
        self.classifier = nn.Sequential(nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


def pairs(library: str) -> Iterator[tuple[str, str]]:
    """The library's block, and the one after it."""
    blocks = re.findall(r'^```python title="(\w+)"\n(.*?)^```', PAGE, re.DOTALL | re.MULTILINE)
    for (name, theirs), (own, ours) in zip(blocks[::2], blocks[1::2], strict=True):
        assert own == "relcompile"
        if name == library:
            yield theirs, ours


@pytest.mark.parametrize("library", ["zennit", "captum"])
@pytest.mark.filterwarnings("ignore:.*(backward hooks|require gradients).*:UserWarning")  # captum's own advice
def test_their_call_and_ours_give_one_map(library: str) -> None:
    torch.manual_seed(0)
    model, x, target = Network().double().eval(), torch.rand(2, 3, 12, 12).double(), torch.tensor([1, 4])
    names: dict[str, Any] = {"model": model, "x": x, "target": target}
    exec("import relcompile, torch", names)
    found = list(pairs(library))
    assert len(found) > 1
    for theirs, ours in found:
        exec(compile(theirs, library, "exec"), names)
        exec(compile(ours, "relcompile", "exec"), names)
        expected = names["theirs"].detach()
        assert expected.abs().max() > 0
        assert_close(names["ours"].detach(), expected, FLOAT64)
        x.requires_grad_(False)
