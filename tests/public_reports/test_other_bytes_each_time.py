"""One model and one rule gave other bytes with another number of threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import relcompile


def network() -> nn.Module:
    """Wide enough that sums over constants are shared out among threads."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(64, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3), nn.Flatten(), nn.Linear(144, 3))


@pytest.mark.parametrize("rule", ["w2", "z+", "flat"])
def test_files_do_not_depend_on_the_number_of_threads(rule: str, tmp_path: Path) -> None:
    """w² sums squares of constants, which PyTorch adds in another order for every number of threads."""
    torch.manual_seed(1)
    x, threads = torch.rand(2, 64, 10, 10), torch.get_num_threads()
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            relcompile.compile(network(), x, rule=rule, target=1, name="net").save(tmp_path / f"{count}.onnx")
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "1.onnx").read_bytes() == (tmp_path / "4.onnx").read_bytes()
