"""Requests of many threads, answered in order and merged where they fit together."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relcompile.errors import InputSpecError, OverloadedError, RuntimeUnavailableError
from relcompile.runtime.production import ProductionExplainer, load
from relcompile.runtime.run_queue import RunQueue
from tests.runtime.test_runtime import W, X, write


class Gate:
    """A session that waits until it may run, and notes what it ran."""

    def __init__(self, session: Any) -> None:
        self._session, self.open, self.rows = session, threading.Event(), list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, feeds: dict[str, Any], options: Any) -> Any:
        assert self.open.wait(60)
        self.rows.append(len(feeds["input"]))
        if np.isinf(feeds["input"]).any():
            raise RuntimeError("no memory")
        return self._session.run(names, feeds, options)


@pytest.fixture
def gated(tmp_path: Path) -> tuple[ProductionExplainer, Gate]:
    explainer = load(write(tmp_path / "e.onnx"), device="cpu")
    gate = Gate(explainer._graph.session)
    return replace(explainer, _graph=replace(explainer._graph, session=gate)), gate


def feeds(explainer: ProductionExplainer, x: np.ndarray, target: int) -> dict[str, Any]:
    return explainer.feeds({"input": x, "target": np.full(len(x), target)})


def test_what_waits_together_runs_together_and_each_gets_its_own(gated: tuple[ProductionExplainer, Gate]) -> None:
    explainer, gate = gated
    queue = RunQueue(explainer, waiting=10, rows=5)
    first = queue.submit(feeds(explainer, X, 0))
    while len(queue):
        pass  # until the first has left the queue; it then waits at the gate
    others = [queue.submit(feeds(explainer, k * X, k)) for k in (1, 2, 3)]
    gate.open.set()
    for k, answer in enumerate([first, *others]):
        np.testing.assert_allclose(answer.result(60)["relevance"], max(k, 1) * X * W[:, k], rtol=1e-6)
    queue.close()
    assert gate.rows == [2, 4, 2]


def test_too_many_are_refused_and_cancelled_ones_are_not_run(gated: tuple[ProductionExplainer, Gate]) -> None:
    explainer, gate = gated
    queue = RunQueue(explainer, waiting=2, rows=2)
    queue.submit(feeds(explainer, X, 0))
    while len(queue):
        pass
    waiting = [queue.submit(feeds(explainer, X, 1)) for _ in range(2)]
    with pytest.raises(OverloadedError, match="2 requests wait already"):
        queue.submit(feeds(explainer, X, 2))
    with pytest.raises(InputSpecError, match="3 rows were given, at most 2"):
        queue.submit(feeds(explainer, np.ones((3, 3), np.float32), 2))
    assert waiting[0].cancel()
    gate.open.set()
    np.testing.assert_allclose(waiting[1].result(60)["relevance"], X * W[:, 1], rtol=1e-6)
    queue.close()
    assert gate.rows == [2, 2]
    assert not queue.is_alive
    with pytest.raises(OverloadedError, match="closed"):
        queue.submit(feeds(explainer, X, 0))


def test_a_run_that_fails_tells_its_callers_and_the_next_one_runs(gated: tuple[ProductionExplainer, Gate]) -> None:
    explainer, gate = gated
    gate.open.set()
    queue = RunQueue(explainer)
    with pytest.raises(RuntimeUnavailableError, match="no memory"):
        queue.submit(feeds(explainer, X * np.float32(np.inf), 0)).result(60)
    np.testing.assert_allclose(queue.submit(feeds(explainer, X, 1)).result(60)["relevance"], X * W[:, 1], rtol=1e-6)
    queue.close()


def test_feeds_by_name(tmp_path: Path) -> None:
    explainer = load(write(tmp_path / "e.onnx"), device="cpu")
    assert [record.name for record in explainer.inputs] == ["input", "target"]
    assert [record.name for record in explainer.outputs] == ["output", "relevance"]
    listed: Any = [3, 1]
    for target in (listed, np.array(listed), np.array([[3], [1]])):
        assert explainer.feeds({"input": X, "target": target})["target"].tolist() == [3, 1]
    for named, told in (
        ({"target": np.array([1])}, "inputs input are missing; target were given"),
        ({"input": X, "target": np.array([1, 2]), "mask": X}, "mask was given, but the file takes input, target"),
    ):
        with pytest.raises(InputSpecError, match=told):
            explainer.feeds(named)
    assert explainer.warm_up()
