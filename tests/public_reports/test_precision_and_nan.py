"""Half precision, a mixture of precisions and NaN are named before anything is compiled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import relcompile
from relcompile.cli.input_specs import parse_spec
from relcompile.errors import InputSpecError


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


def with_nan() -> nn.Module:
    model = net()
    with torch.no_grad():
        model[2].weight[0, :2] = torch.nan  # type: ignore[index]
    return model


CASES: dict[str, tuple[nn.Module, Tensor, str]] = {
    "half": (net().half(), torch.rand(2, 4), r"0\.weight float16.*model\.float\(\)"),
    "bfloat16": (net().bfloat16(), torch.rand(2, 4), r"0\.weight bfloat16.*model\.float\(\)"),
    "one layer": (nn.Sequential(nn.Linear(4, 4).half(), nn.Linear(4, 3)), torch.rand(2, 4), "2 tensors of half"),
    "double": (net().double(), torch.rand(2, 4), r"float64.*input float32.*model\.float\(\)"),
    "half input": (net(), torch.rand(2, 4).half(), r"input float16.*\.float\(\)"),
    "nan": (with_nan(), torch.rand(2, 4), r"NaN \(2\.weight: 2 of 18\)"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_named_before_compiling(name: str) -> None:
    model, x, message = CASES[name]
    steps = list[str]()
    with pytest.raises(InputSpecError, match=message):
        relcompile.compile(model, x, rule="z+", progress=steps.append)
    assert steps == []


@pytest.mark.parametrize("dtype", ["float16", "half", "bfloat16"])
def test_a_description_of_half_precision_is_refused(dtype: str) -> None:
    with pytest.raises(InputSpecError, match=r"1x3x64x64:\w+' is of half precision.*model\.float\(\)"):
        parse_spec(f"1x3x64x64:{dtype}")


def test_an_example_that_no_machine_holds_is_refused_early() -> None:
    with pytest.raises(InputSpecError, match="1x3x224x999999999999' has more than 1,073,741,824 numbers"):
        parse_spec("1x3x224x999999999999")
