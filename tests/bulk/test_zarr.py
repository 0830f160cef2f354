"""`relcompile batch --format zarr`: the arrays are the rows of the tables, and jobs go on."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr

from tests.bulk.jobs import arrays, rows, run, tar_of
from tests.bulk.photographs import explainer, folder_of, truth


def test_arrays_are_the_rows_and_a_job_that_was_killed_goes_on(tmp_path: Path) -> None:
    photographs, out, file = folder_of(tmp_path / "in", 600), tmp_path / "out", explainer(tmp_path / "e.onnx")
    command = ["batch", str(file), str(photographs), str(out), "--format", "zarr", "--part", "15", "--threads", "1"]
    with subprocess.Popen([sys.executable, "-m", "relcompile", *command], stderr=subprocess.DEVNULL) as killed:
        while not (out / "relevance.zarr" / "path" / "c" / "4").exists():
            assert killed.poll() is None
            time.sleep(0.005)
        killed.kill()
    done = arrays(out)["path"] != ""
    assert done[:75].all()
    assert not done.all()
    times = {path: path.stat().st_mtime_ns for path in out.glob("relevance.zarr/path/c/[0-4]")}
    (out / "relevance.zarr" / "path" / "c" / "39.half.partial").touch()  # as the killed one may have left it

    assert run(*command[1:]) == 0

    assert {path: path.stat().st_mtime_ns for path in times} == times, "what was done is not done again"
    assert not list(out.rglob("*.partial"))
    assert run(file, photographs, tmp_path / "table", "--part", 15, "--threads", 1) == 0
    found, expected = arrays(out), rows(tmp_path / "table")
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], strict=name == "relevance", err_msg=name)
    assert len(list(out.glob("relevance.zarr/relevance/c/*/0/0"))) == 40, "a file for each part"


@pytest.mark.parametrize("stored", ["float16", "int8"])
def test_arrays_of_photographs_that_are_not_all_read(tmp_path: Path, stored: str) -> None:
    """Parts of different sizes: chunks are as long as lets every part begin with one."""
    files = sorted(folder_of(tmp_path / "pictures", 9).iterdir())
    files[2].write_bytes(b"no picture")
    (tmp_path / "in").mkdir()
    for name, some in (("a", files[:6]), ("b", files[6:])):
        tar_of(tmp_path / "in" / f"{name}.tar", some)
    options = ("--part", 4, "--keep-channels", "--format", "zarr", "--stored", stored)
    assert run(explainer(tmp_path / "e.onnx"), tmp_path / "in", tmp_path / "out", *options) == 2
    group, found = zarr.open_group(tmp_path / "out" / "relevance.zarr", mode="r"), arrays(tmp_path / "out")
    relevance: Any = group["relevance"]
    assert (relevance.shards, relevance.chunks) == ((2, 3, 4, 4), (1, 3, 4, 4))
    assert relevance.metadata.dimension_names == ("photograph", "channel", "height", "width")
    assert [name.partition("#train/")[2] for name in found["path"]] == [file.name for file in files]
    assert found["relevance"].dtype == stored
    for seed in range(9):
        scale = found["scale"][seed]
        if seed == 2:
            assert (found["prediction"][seed], np.isnan(scale), found["relevance"][seed].any()) == (-1, True, False)
        else:
            assert abs(found["relevance"][seed] * scale - truth(seed, None)[1]).max() < 0.01
    assert [row["path"] for row in pq.read_table(tmp_path / "out" / "errors").to_pylist()] == [found["path"][2]]


def test_a_full_disk_and_arrays(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, file, out = folder_of(tmp_path / "in", 150), explainer(tmp_path / "e.onnx"), tmp_path / "out"
    options, limits = ("--part", 50, "--format", "zarr", "--keep-channels"), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert run(file, folder, out, *options) == 0
    expected = arrays(out)
    (
        out / "relevance.zarr" / "path" / "c" / "1"
    ).unlink()  # as if the job had got so far; shards are larger than the limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        assert run(file, folder, out, *options) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = capfd.readouterr().err
    assert f"cannot write {out / 'relevance.zarr'}: File too large" in " ".join(told.split())
    assert "Traceback" not in told
    assert arrays(out)["path"].tolist() == [*expected["path"][:50], *[""] * 50, *expected["path"][100:]]
    assert run(file, folder, out, *options) == 0
    for name, array in arrays(out).items():
        np.testing.assert_array_equal(array, expected[name])
