"""What data engines call, compared with a calculation by hand."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from relcompile.bulk.explain_batch import ExplainBatch
from relcompile.errors import InputSpecError
from tests.bulk.photographs import explainer, folder_of, truth
from tests.runtime.test_runtime import write

# Relative to the largest relevance: half a step of float16 (11 bits) and of 127 steps, and float32 rounding.
STEP = {"float16": 2.0**-11, "int8": 0.5 / 127}
ROUNDING = 1e-6


@pytest.mark.parametrize("form", STEP)
@pytest.mark.parametrize("keep_channels", [True, False])
@pytest.mark.parametrize(("mode", "target"), [("index", None), ("index", 2), ("argmax", None)])
def test_rows_are_what_a_calculation_by_hand_gives(
    tmp_path: Path, form: Any, keep_channels: bool, mode: str, target: int | None
) -> None:
    photographs = sorted(folder_of(tmp_path / "in", 7).iterdir())
    asked = ExplainBatch(str(explainer(tmp_path / "e.onnx", mode)), target, form, keep_channels, rows=3)
    for call in (asked, pickle.loads(pickle.dumps(asked))):
        found = call({"path": np.array([str(path) for path in photographs])})
        assert found["relevance"].shape == (7, *asked.shape)
        assert (found["relevance"].dtype, list(found["error"])) == (np.dtype(form), [""] * 7)
        for seed in range(7):
            scores, relevance, chosen = truth(seed, target)
            stored = relevance if keep_channels else relevance.sum(0)
            assert (found["prediction"][seed], found["target"][seed]) == (scores.argmax(), chosen)
            terms = abs(relevance).sum()  # of which score and sum are sums, in float32
            np.testing.assert_allclose(found["logit"][seed], scores[chosen], atol=ROUNDING * terms)
            np.testing.assert_allclose(found["sum"][seed], relevance.sum(), atol=ROUNDING * terms)
            error = abs(found["scale"][seed] * found["relevance"][seed].astype(np.float64) - stored).max()
            assert error <= (STEP[form] + ROUNDING) * abs(stored).max()


@pytest.mark.parametrize("keep_channels", [True, False])
def test_relevance_that_the_graph_sums_in_half_precision(tmp_path: Path, keep_channels: bool) -> None:
    photographs = sorted(folder_of(tmp_path / "in", 3).iterdir())
    asked = ExplainBatch(str(explainer(tmp_path / "e.onnx", summed=True)), keep_channels=keep_channels)
    found = asked({"path": [str(path) for path in photographs]})
    assert found["relevance"].shape == (3, *((1,) if keep_channels else ()), 4, 4)
    for seed in range(3):
        stored = truth(seed, None)[1].sum(0)
        read = found["scale"][seed] * found["relevance"][seed].astype(np.float64).reshape(4, 4)
        assert abs(read - stored).max() <= 2 * STEP["float16"] * abs(stored).max()


def test_contents_are_explained_as_files_are(tmp_path: Path) -> None:
    paths = sorted(folder_of(tmp_path / "in", 3).iterdir())
    asked = ExplainBatch(str(explainer(tmp_path / "e.onnx")))
    files = asked({"path": [str(path) for path in paths]})
    contents = asked({"path": list("abc"), "bytes": [path.read_bytes() for path in paths]})
    assert list(contents["path"]) == ["a", "b", "c"]
    for name in set(files) - {"path"}:
        np.testing.assert_array_equal(files[name], contents[name])


def test_what_cannot_be_read_is_told_and_stops_nothing(tmp_path: Path) -> None:
    good = next(iter(folder_of(tmp_path / "in", 1).iterdir()))
    asked = ExplainBatch(str(explainer(tmp_path / "e.onnx")))
    contents = [b"", good.read_bytes(), b"%!PS", good.read_bytes()[:60]]
    found = asked({"path": list("abcd"), "bytes": contents})
    assert [bool(error) for error in found["error"]] == [True, False, True, True]
    assert list(found["prediction"] == -1) == [True, False, True, True]
    assert "the image c cannot be read" in found["error"][2]
    assert np.isnan(found["scale"][[0, 2, 3]]).all()
    np.testing.assert_allclose(found["sum"][1], truth(0, None)[1].sum(), rtol=1e-5)


def test_a_map_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    folder, file = folder_of(tmp_path / "in", 2), explainer(tmp_path / "e.onnx", "argmax")
    model = onnx.load(file)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1e38), tensor.name))
    onnx.save(model, file)
    found = ExplainBatch(str(file))({"path": [str(path) for path in sorted(folder.iterdir())]})
    assert set(found["error"]) == {"NaN or infinity in the input, the prediction or the relevance"}
    assert found["prediction"].tolist() == [-1, -1]
    assert not found["relevance"].any()


def test_an_explainer_of_something_else_is_refused(tmp_path: Path) -> None:
    for mode, told in (("index", "not one photograph"), ("seed", "does not say one thing")):
        with pytest.raises(InputSpecError, match=told):
            ExplainBatch(str(write(tmp_path / f"{mode}.onnx", mode)))({"path": ["a.png"]})
