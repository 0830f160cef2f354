"""The runtime's own arguments raised raw errors, and an explainer could be neither pickled nor copied."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import relcompile
from relcompile.errors import ExplainerFileError, InputSpecError
from tests.cli.test_cli import small_network

X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explainer") / "x.onnx"
    relcompile.compile(small_network(), X).save(path)
    return path


def test_explainers_travel(saved: Path) -> None:
    explainer = relcompile.load(saved, device="cpu", threads=1)
    expected = explainer.explain(X.numpy(), target=3).relevance
    for travelled in (pickle.loads(pickle.dumps(explainer)), copy.deepcopy(explainer), copy.copy(explainer)):
        np.testing.assert_array_equal(travelled.explain(X.numpy(), target=3).relevance, expected)


@pytest.mark.parametrize("seed", [-1, 1.5, "0", None, True])
def test_seeds_that_are_none(seed: Any, saved: Path) -> None:
    with pytest.raises(InputSpecError, match="seed="):
        relcompile.load(saved, device="cpu").explain(X.numpy(), target=0, seed=seed)


@pytest.mark.parametrize("path", [None, 3])
def test_paths_that_are_none(path: Any) -> None:
    with pytest.raises(InputSpecError, match="want the path"):
        relcompile.load(path)
    with pytest.raises(ExplainerFileError, match="int64 tensor"):
        relcompile.load("x.pt2")


@pytest.mark.parametrize(
    "wrong",
    [
        {"device": "tpu"},
        {"threads": 0},
        {"threads": 1.5},
        {"threads": True},
        {"spinning": "no"},
        {"gpu": {"number": 1}},
    ],
)
def test_options_that_make_no_sense_are_refused(saved: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputSpecError, match="want"):
        relcompile.load(saved, **wrong)
