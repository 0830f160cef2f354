"""An explainer file that was damaged is not run."""

from __future__ import annotations

import random
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import relcompile
from relcompile.errors import ExplainerFileError
from relcompile.files.seal import SEAL_KEY, check_seal

FLIPS = 500


@pytest.fixture(scope="module")
def explainer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seal") / "explainer.onnx"
    relcompile.compile(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4)).save(path)
    return path


def test_every_flipped_bit_is_noticed(explainer: Path, tmp_path: Path) -> None:
    content, damaged = explainer.read_bytes(), tmp_path / "damaged.onnx"
    seal, generator = range(content.rindex(SEAL_KEY.encode()), len(content)), random.Random(0)
    places = [place for place in generator.sample(range(8 * len(content)), FLIPS) if place // 8 not in seal[:19]]
    for place in places:
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        damaged.write_bytes(changed)
        with pytest.raises(ExplainerFileError, match="its checksum is wrong"):
            check_seal(damaged)
    with pytest.raises(ExplainerFileError, match="its checksum is wrong"):
        relcompile.load(damaged)


def test_a_whole_file_and_one_without_a_seal_are_run(explainer: Path, tmp_path: Path) -> None:
    relcompile.load(explainer)
    model = onnx.load(explainer)
    entries = [entry for entry in model.metadata_props if entry.key != SEAL_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(entries)
    onnx.save(model, tmp_path / "unsealed.onnx")
    relcompile.load(tmp_path / "unsealed.onnx")
