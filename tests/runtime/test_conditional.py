"""Explaining only where the prediction asks for it: what passes, and that nothing else is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import pytest
from onnx import helper, numpy_helper

from relcompile.errors import ExplainerFileError, InputSpecError, TargetError
from relcompile.files.seal import PREDICTS_KEY
from relcompile.runtime.best import explain_best
from relcompile.runtime.conditional import Condition
from relcompile.runtime.production import ProductionExplainer, load
from tests.runtime.test_runtime import HEADER, MODES, W, write

ROWS = np.array([[1.0, 2.0, 3.0], [-1.0, 0.5, 2.0], [0.1, -0.2, 0.0], [0.0, 0.0, np.nan]], np.float32)
BEST = [0, 0, 1, 0]  # of the last one, nothing is known
SOFTMAX = [np.exp(row).max() / np.exp(row).sum() for row in ROWS[:3].astype(float) @ W]


class Counting:
    """A session that counts its runs."""

    def __init__(self, session: Any) -> None:
        self._session, self.rows = session, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, feeds: dict[str, Any], options: Any) -> Any:
        self.rows.append(len(feeds["input"]))
        return self._session.run(names, feeds, options)


def predicts(path: Path, checksum: str = "0" * 64) -> Path:
    """The prediction of the linear explainer alone."""
    text = f"{HEADER} prediction (float[batch, 3] input) => (float[batch, 4] output) {{ output = MatMul (input, W) }}"
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(W, "W"))
    helper.set_model_props(model, {PREDICTS_KEY: checksum})
    onnx.save(model, path)
    return path


def paired(folder: Path, mode: str = "index") -> tuple[ProductionExplainer, Counting]:
    """An explainer with its prediction beside it, and what counts the runs of the explainer."""
    predicts(folder / "e.predict.onnx")
    explainer = load(write(folder / "e.onnx", mode), device="cpu", threads=1)
    counting = Counting(explainer._graph.session)
    return replace(explainer, _graph=replace(explainer._graph, session=counting)), counting


CONDITIONS: dict[str, tuple[Any, list[int]]] = {
    "all that is a number": (Condition(), [0, 1, 2]),
    "probable": (Condition(probability=0.8), [0, 1]),
    "just probable enough": (Condition(probability=SOFTMAX[2] - 1e-6), [0, 1, 2]),
    "not quite": (Condition(probability=SOFTMAX[2] + 1e-6), [0, 1]),
    "classes": (Condition(classes=(1, 3)), [2]),
    "both": (Condition(probability=0.8, classes=(1, 3)), []),
    "of a function": (lambda output: output[:, 1] > -10, [0, 1, 2]),
    "nothing": (Condition(probability=1.0), []),
}


@pytest.mark.parametrize("case", CONDITIONS)
@pytest.mark.parametrize("mode", MODES)
def test_rows_that_pass_are_explained_as_by_the_whole_file(tmp_path: Path, mode: str, case: str) -> None:
    (condition, rows), (explainer, counting) = CONDITIONS[case], paired(tmp_path, mode)
    seeds = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    target = {"index": BEST, "seed": seeds}.get(mode)

    found = explainer.explain_if(condition, ROWS, **({} if mode == "index" else {"target": target}))

    assert np.flatnonzero(found.explained).tolist() == rows
    assert counting.rows == ([len(rows)] if rows else [])
    np.testing.assert_allclose(found.output, ROWS @ W, rtol=1e-6)
    assert found.outputs["output"] is found.output
    whole = explainer.explain(ROWS, target=target)
    if found.explanation is None:
        assert not rows
        return
    assert whole.target is not None
    np.testing.assert_array_equal(found.explanation.relevance, whole.relevance[rows])
    np.testing.assert_array_equal(found.explanation.target, whole.target[rows])
    np.testing.assert_array_equal(found.explanation.finite, whole.finite[rows])


def test_the_prediction_alone_runs_no_explainer(tmp_path: Path) -> None:
    explainer, counting = paired(tmp_path)
    np.testing.assert_allclose(explainer.predict(ROWS)["output"], ROWS @ W, rtol=1e-6)
    assert counting.rows == []
    assert explainer.explain_if(Condition(), ROWS[:1], target=[2]).explanation is not None
    with pytest.raises(TargetError, match="target 9"):
        explainer.explain_if(Condition(1.0), ROWS, target=9)  # wrong is wrong, whatever passes
    with pytest.raises(InputSpecError, match="axis 1 is not 3"):
        explainer.predict(ROWS[:, :2])


def test_the_best_class_of_a_pair_takes_one_run(tmp_path: Path) -> None:
    explainer, counting = paired(tmp_path)
    found = explain_best(explainer, ROWS[:3])
    assert counting.rows == [3]
    assert found.target is not None
    assert found.target.tolist() == BEST[:3]
    np.testing.assert_allclose(found.relevance, ROWS[:3] * W[:, BEST[:3]].T, rtol=1e-6)


@pytest.mark.parametrize(
    ("scores", "output", "passes"),
    [
        ("sigmoid", [0.1, -0.1, 40.0, -1e3], [True, False, True, False]),  # sigmoid(0.1) = 0.525
        ("sigmoid", [[0.1], [-0.1]], [True, False]),
        ("sigmoid", [[-5.0, 0.1], [-5.0, -0.1]], [True, False]),
        ("probabilities", [[0.3, 0.52], [0.5, 0.5]], [True, True]),
        ("softmax", [[0.0, 0.1], [-1e4, 0.0], [-0.1, -0.1], [0.0, np.inf]], [True, True, True, False]),
    ],
)
def test_what_a_probability_is(scores: Any, output: Any, passes: list[bool]) -> None:
    assert Condition(probability=0.5, scores=scores)(np.array(output)).tolist() == passes


WRONG: dict[str, tuple[Any, str]] = {
    "a percentage": (lambda: Condition(probability=90), "probability=90"),
    "another kind": (lambda: Condition(scores="logits"), "scores='logits'"),  # pyright: ignore[reportArgumentType]
    "names": (lambda: Condition(classes=("cat",)), "classes="),  # pyright: ignore[reportArgumentType]
    "softmax of one": (lambda: Condition(0.5)(np.ones((3, 1))), "makes no probability"),
    "places": (lambda: Condition(0.5)(np.ones((3, 2, 4))), "a function of your own"),
}


@pytest.mark.parametrize("case", WRONG)
def test_conditions_that_say_nothing_are_refused(case: str) -> None:
    with pytest.raises(InputSpecError, match=WRONG[case][1]):
        WRONG[case][0]()


def test_a_condition_is_about_each_row(tmp_path: Path) -> None:
    with pytest.raises(InputSpecError, match=r"float32 \(4, 4\) for 4 rows; want bool \(4,\)"):
        paired(tmp_path)[0].explain_if(lambda output: output, ROWS)


def test_a_prediction_is_no_explainer(tmp_path: Path) -> None:
    with pytest.raises(ExplainerFileError, match=r"e.predict.onnx: it is the prediction alone; give the explainer"):
        load(predicts(tmp_path / "e.predict.onnx"))


@pytest.mark.parametrize("fault", ["nothing", "another model's", "other outputs", "damaged", "content"])
def test_a_prediction_that_is_not_of_this_explainer_is_refused(tmp_path: Path, fault: str) -> None:
    path = write(tmp_path / "e.onnx")
    if fault == "another model's":
        predicts(tmp_path / "e.predict.onnx", "1" * 64)
    elif fault == "other outputs":
        write(tmp_path / "e.predict.onnx")
    elif fault == "damaged":
        (tmp_path / "e.predict.onnx").write_bytes(b"no model")
    explainer = load(path.read_bytes() if fault == "content" else path, device="cpu")
    assert explainer.is_paired == (fault not in ("nothing", "content"))
    told = {"nothing": "--pair", "damaged": "cannot load", "content": "loaded from its content"}
    with pytest.raises(ExplainerFileError, match=told.get(fault, "is not the prediction of")):
        explainer.predict(ROWS)
