"""No name in a model is more than a name: none is run, each is found, whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import relcompile
from relcompile.cli.main import main
from tests.frontend.names import PROGRAM, X, renamed

MARKER = "OWNED"


def attacks() -> dict[str, nn.Module]:
    def net() -> nn.Sequential:
        return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU()).eval()

    found = {name: net() for name in ("child", "parameter", "buffer", "alias", "plain tensor", "of the parent")}
    renamed(found["child"], "_modules", {"0": PROGRAM})
    weight = found["parameter"][0]._parameters
    weight[PROGRAM] = weight["weight"]
    found["buffer"][1]._buffers[PROGRAM] = torch.ones(3)
    found["alias"]._parameters[PROGRAM] = found["alias"][0].weight
    for place in ("plain tensor", "of the parent"):  # the tensor is used, and torch calls it by its first name
        norm = found[place][1]
        mean = norm._buffers.pop("running_mean")
        vars(norm if place == "plain tensor" else found[place])[PROGRAM] = mean
        vars(norm)["running_mean"] = mean
    return found


ATTACKS = attacks()


@pytest.mark.parametrize("place", ATTACKS)
def test_a_name_that_is_a_program_does_not_run(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(ATTACKS[place], "evil.pt")
    main_quietly(["evil.pt", "--input", "1x4"])
    main_quietly(["inspect", "evil.z+.onnx"])
    relcompile.compile(ATTACKS[place], X)
    assert not Path(MARKER).exists()


def main_quietly(arguments: list[str]) -> None:
    try:
        main(arguments)
    except SystemExit as ended:
        assert ended.code in (0, None, 2)  # noqa: PT017
