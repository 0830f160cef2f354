"""Relevance as it leaves the graph: channels reduced to one, half precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.errors import ExportError, InputSpecError, RelcompileError
from tests.compare import FLOAT64, assert_close
from tests.question.networks import TARGET, X, residual

REDUCED: dict[str, Callable[[Tensor], Tensor]] = {
    "sum": lambda R: R.sum(1, keepdim=True),
    "abs": lambda R: R.abs().sum(1, keepdim=True),
    "max": lambda R: R.abs().amax(1, keepdim=True),
}


@pytest.mark.parametrize("reduce", REDUCED)
def test_channels_become_one(reduce: str) -> None:
    options: dict[str, Any] = {"rule": "epsilon", "taps": ["pool"], "absorbed": True}
    whole = relcompile.compile(residual(), X, **options)(X, TARGET)
    found = relcompile.compile(residual(), X, **options, reduce=reduce)(X, TARGET)
    assert_close(found[1], REDUCED[reduce](whole[1]), FLOAT64)
    for actual, expected in zip((found[0], *found[2:]), (whole[0], *whole[2:]), strict=True):
        assert_close(actual, expected, FLOAT64)


def test_of_every_question_and_behind_the_mean_of_copies() -> None:
    whole = relcompile.compile(residual(), X, rule="smoothgrad=3", target="3,1")
    found = relcompile.compile(residual(), X, rule="smoothgrad=3", target="3,1", reduce="abs")
    noise = torch.randn(3, 3, *X.shape[1:], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert_close(found(X, noise)[1], whole(X, noise)[1].abs().sum(2, keepdim=True), FLOAT64)


def test_a_file_in_half_precision(tmp_path: Path) -> None:
    model, x = residual().float(), X.float()
    single = relcompile.compile(model, x, rule="epsilon", taps=["pool"], absorbed=True)(x, TARGET)
    explainer = relcompile.compile(
        model, x, rule="epsilon", taps=["pool"], absorbed=True, output_dtype="float16", reduce="sum"
    )
    explainer.save(tmp_path / "half.onnx")
    found = relcompile.load(tmp_path / "half.onnx", device="cpu").explain(x.numpy(), target=TARGET.numpy())
    assert [found.output.dtype, found.relevance.dtype, found.taps["pool"].dtype] == [np.float32, np.float16, np.float16]
    assert found.absorbed is not None
    assert found.absorbed.dtype == np.float32
    assert_close(found.relevance.astype(np.float32), single[1].sum(1, keepdim=True), 2e-3)  # 11 bits
    assert_close(found.taps["pool"].astype(np.float32), single[2], 2e-3)
    assert (found.metadata.reduce, found.metadata.output_dtype) == ("sum", "float16")
    assert "sum over channels" in found.title(0)


def tiny() -> nn.Module:
    model = residual().float()
    with torch.no_grad():
        for parameter in model.get_submodule("head").parameters():
            parameter.mul_(1e-7)
    return model


WRONG: dict[str, tuple[dict[str, Any], type[RelcompileError], str]] = {
    "no such reduction": ({"reduce": "mean"}, InputSpecError, "must be sum or abs or max"),
    "no such type": ({"output_dtype": "int8"}, InputSpecError, r"\(--output-dtype\) must be float16"),
    "no channels": ({"reduce": "sum", "at": "head"}, InputSpecError, "is over channels, but relevance has 2 axes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_exist_is_refused(name: str) -> None:
    options, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        relcompile.compile(residual(), X, **options)


def test_numbers_that_half_precision_loses(tmp_path: Path) -> None:
    explainer = relcompile.compile(tiny(), X.float(), rule="epsilon", output_dtype="float16")
    with pytest.raises(ExportError, match="too small for float16"):
        explainer.save(tmp_path / "half.onnx")
    assert not list(tmp_path.iterdir())
