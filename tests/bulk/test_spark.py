"""Spark's `predict_batch_udf` around the callable, on a real local Spark."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relcompile.bulk.explain_batch import ExplainBatch
from tests.bulk.photographs import explainer, folder_of, truth

COLUMNS = (
    "path string, prediction long, target long, logit float, sum float, scale double, relevance array<{}>, error string"
)


def explains(file: Path, form: Any) -> Callable[[], Any]:
    """What Spark calls once in each worker, as the documentation has it."""

    def load() -> Any:
        explain = ExplainBatch(str(file), form=form, threads=1)

        def predict(path: np.ndarray, content: np.ndarray) -> dict[str, np.ndarray]:
            found = explain({"path": path, "bytes": content})
            return {**found, "relevance": found["relevance"].reshape(len(path), -1)}

        return predict

    return load


@pytest.mark.heavy
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("form", "stored"), [("int8", "tinyint"), ("float16", "float")])
def test_spark_calls_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, stored: str) -> None:
    functions = pytest.importorskip("pyspark.ml.functions")
    sql, types = pytest.importorskip("pyspark.sql"), pytest.importorskip("pyspark.sql.types")
    folder = folder_of(tmp_path / "in", 10)
    (folder / "00003.png").write_bytes(b"no picture")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    spark = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        data = spark.read.format("binaryFile").load(str(folder))
        columns = types.StructType.fromDDL(COLUMNS.format(stored))
        asked = explains(explainer(tmp_path / "e.onnx"), form)
        udf = functions.predict_batch_udf(asked, return_type=columns, batch_size=4)
        found = data.select(udf("path", "content").alias("found")).select("found.*").orderBy("path").collect()
    finally:
        spark.stop()
    assert [Path(row["path"]).name for row in found] == sorted(path.name for path in folder.iterdir())
    assert [bool(row["error"]) for row in found] == [seed == 3 for seed in range(10)]
    for seed in set(range(10)) - {3}:
        scores, relevance, _ = truth(seed, None)
        row = found[seed]
        assert row["prediction"] == scores.argmax()
        assert abs(np.array(row["relevance"]).reshape(4, 4) * row["scale"] - relevance.sum(0)).max() < 0.02
