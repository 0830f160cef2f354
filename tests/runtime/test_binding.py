"""Tensors that are read and written where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from relcompile.errors import InputSpecError
from relcompile.runtime.production import load
from tests.runtime.test_runtime import W, X, write


@pytest.mark.parametrize("of", [torch.from_numpy, np.asarray], ids=["torch", "numpy"])
def test_inputs_and_outputs_stay_where_they_are(tmp_path: Path, of: Any) -> None:
    x, classes = X.copy(), np.array([3, 1])
    bound = load(write(tmp_path / "e.onnx"), device="cpu").bind({"target": of(classes), "input": of(x)})
    first = torch.from_dlpack(bound.run()["relevance"])
    np.testing.assert_allclose(first, X * W[:, classes].T, rtol=1e-6)
    x *= 2
    classes[:] = 0
    found = bound.run()
    assert found["relevance"].data_ptr() == first.data_ptr()
    np.testing.assert_allclose(first, 2 * X * W[:, 0], rtol=1e-6)  # read in place, and written in place
    np.testing.assert_allclose(np.from_dlpack(found["output"]), 2 * X @ W, rtol=1e-6)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "missing": ({"input": torch.ones(2, 3)}, "input was given, but the file takes input, target"),
    "a dtype": ({"input": torch.ones(2, 3).double()}, r"wants tensor\(float\).*tensor\(double\)"),
    "an axis": ({"input": torch.ones(2, 4)}, r"\[2, 4\] was given"),
    "axes": ({"input": torch.ones(2)}, r"\[2\] was given"),
    "batches": ({"input": torch.ones(3, 3)}, r"input target wants.*\[2\] was given"),
    "no rows": ({"input": torch.ones(0, 3), "target": torch.zeros(0, dtype=torch.long)}, "an empty tensor"),
    "not contiguous": ({"input": torch.ones(3, 2).T}, "by DLPack"),
    "no tensor": ({"input": [1.0]}, "by DLPack"),
    "a gradient": ({"input": torch.ones(2, 3, requires_grad=True)}, "by DLPack.*detach"),
}


@pytest.mark.parametrize("case", WRONG)
def test_tensors_that_do_not_fit_are_refused(tmp_path: Path, case: str) -> None:
    given, told = WRONG[case]
    defaults = {} if case == "missing" else {"target": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(InputSpecError, match=told):
        load(write(tmp_path / "e.onnx"), device="cpu").bind({**defaults, **given})
