"""`relcompile batch`: whole jobs, stopped ones, wrong ones."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.bulk.jobs import arrays, parts, rows, run, tar_of
from tests.bulk.photographs import explainer, folder_of, truth


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("many") / "in", 2000)


def test_a_job_that_was_killed_goes_on_and_loses_and_repeats_nothing(photographs: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", explainer(tmp_path / "e.onnx")
    command = ["batch", str(file), str(photographs), str(out), "--part", "50", "--threads", "1"]
    with subprocess.Popen([sys.executable, "-m", "relcompile", *command], stderr=subprocess.DEVNULL) as killed:
        while len(list(out.glob("relevance/*.parquet"))) < 5:
            assert killed.poll() is None
            time.sleep(0.005)
        killed.kill()
    done = parts(out)
    assert 5 <= len(done) < 40
    times = {path: path.stat().st_mtime_ns for path in out.glob("relevance/*.parquet")}

    assert run(*command[1:]) == 0

    assert {path: path.stat().st_mtime_ns for path in times} == times, "what was done is not done again"
    assert not list(out.rglob(".relcompile-*"))
    found = rows(out)
    assert found["path"] == [str(path) for path in sorted(photographs.iterdir())]
    for seed in (0, 999, 1999):
        assert abs(found["relevance"][seed] * found["scale"][seed] - truth(seed, None)[1].sum(0)).max() < 0.01
    assert run(file, photographs, tmp_path / "again", "--part", 50, "--threads", 1) == 0
    assert parts(tmp_path / "again") == parts(out)


def test_an_error_of_a_try_that_was_broken_off_is_forgotten(tmp_path: Path) -> None:
    folder, out = folder_of(tmp_path / "in", 2), tmp_path / "out"
    whole = (folder / "00001.png").read_bytes()
    (folder / "00001.png").write_bytes(b"no picture")
    assert run(explainer(tmp_path / "e.onnx"), folder, out) == 2
    (out / "relevance" / "part-00000.parquet").unlink()  # as if it had been stopped between the two
    (folder / "00001.png").write_bytes(whole)
    assert run(tmp_path / "e.onnx", folder, out) == 0
    assert len(rows(out)["path"]) == 2
    assert not list(out.glob("errors/*.parquet"))


def test_bad_photographs_are_a_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = folder_of(tmp_path / "in", 5)
    (folder / "00001.png").write_bytes(b"no picture")
    (folder / "00003.png").unlink()
    (folder / "00003.png").symlink_to("nothing.png")  # a link to nothing is no photograph
    os.mkfifo(folder / "00009.png")  # and neither is a pipe
    assert run(explainer(tmp_path / "e.onnx"), folder, tmp_path / "out", "--part", 2) == 2
    assert "1 of 4 photographs could not be explained: see" in capfd.readouterr().err
    assert [Path(path).stem for path in rows(tmp_path / "out")["path"]] == ["00000", "00002", "00004"]
    errors = pq.read_table(tmp_path / "out" / "errors").to_pylist()
    assert [Path(row["path"]).stem for row in errors] == ["00001"]
    assert "cannot be read" in errors[0]["error"]


@pytest.mark.parametrize("form", ["parquet", "zarr"])
def test_names_that_are_not_utf_8_are_written_as_python_writes_them(tmp_path: Path, form: str) -> None:
    folder, out = folder_of(tmp_path / "in", 3), tmp_path / "out"
    for before, after in (("00000.png", b"a\xff.png"), ("00001.png", b"b\xff.png")):
        os.rename(folder / before, os.path.join(os.fsencode(folder), after))
    Path(os.fsdecode(os.path.join(os.fsencode(folder), b"b\xff.png"))).write_bytes(b"no picture")
    assert run(explainer(tmp_path / "e.onnx"), folder, out, "--format", form) == 2
    found = rows(out)["path"] if form == "parquet" else arrays(out)["path"].tolist()
    good, bad = f"{folder}/a\\udcff.png", f"{folder}/b\\udcff.png"
    assert found == [f"{folder}/00002.png", good, *([bad] if form == "zarr" else [])]
    errors = pq.read_table(out / "errors").to_pylist()
    assert [row["path"] for row in errors] == [bad]
    assert bad in errors[0]["error"]


def test_a_row_group_that_is_damaged_is_an_error_of_each_of_its_photographs(tmp_path: Path) -> None:
    files = sorted(folder_of(tmp_path / "pictures", 6).iterdir())
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.parquet"
    pq.write_table(pa.table({"image": [file.read_bytes() for file in files]}), path, row_group_size=2)
    column = pq.read_metadata(path).row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xff" * column.total_compressed_size)
    os.mkfifo(tmp_path / "in" / "b.parquet")  # which nobody writes to: it is not waited for
    assert run(explainer(tmp_path / "e.onnx"), tmp_path / "in", tmp_path / "out") == 2
    assert rows(tmp_path / "out")["path"] == [f"{path}#{k}" for k in (0, 1, 4, 5)]
    errors = pq.read_table(tmp_path / "out" / "errors").to_pylist()
    assert [row["path"] for row in errors] == [f"{path}#2", f"{path}#3"]
    assert all("a.parquet cannot be read as Parquet" in row["error"] for row in errors)


@pytest.mark.parametrize("kind", ["bytes", "records", "without names"])
def test_parquet_in_parquet_out(tmp_path: Path, kind: str) -> None:
    files = sorted(folder_of(tmp_path / "pictures", 6).iterdir())
    contents: list[Any] = [file.read_bytes() for file in files]
    contents[4] = None
    if kind == "records":
        contents = [content and {"bytes": content, "path": None} for content in contents]
    columns = {"image": contents, "label": list(range(6))}
    if kind != "without names":
        columns["path"] = [file.name for file in files]
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "in" / "a.parquet", row_group_size=4)

    assert run(explainer(tmp_path / "e.onnx"), tmp_path / "in", tmp_path / "out", "--stored", "int8") == 2

    found = rows(tmp_path / "out")
    names = (
        [file.name for file in files] if kind != "without names" else [f"{tmp_path}/in/a.parquet#{k}" for k in range(6)]
    )
    assert found["path"] == [*names[:4], names[5]]
    np.testing.assert_allclose(found["sum"][4], truth(5, None)[1].sum(), rtol=1e-5)
    assert pq.read_table(tmp_path / "out" / "errors")["path"].to_pylist() == [names[4]]


def test_tar_files_in_parquet_out(tmp_path: Path) -> None:
    files = sorted(folder_of(tmp_path / "pictures", 6).iterdir())
    (tmp_path / "in").mkdir()
    files[1].write_bytes(b"no picture")
    tars = [tar_of(tmp_path / "in" / f"{name}.tar", some) for name, some in (("a", files[:4]), ("b", files[4:]))]

    assert run(explainer(tmp_path / "e.onnx"), tmp_path / "in", tmp_path / "out", "--part", 3) == 2

    names = [f"{tars[k // 4]}#train/{file.name}" for k, file in enumerate(files)]
    found = rows(tmp_path / "out")
    assert found["path"] == [names[0], *names[2:]]
    for seed, total in zip((0, 2, 3, 4, 5), found["sum"], strict=True):
        np.testing.assert_allclose(total, truth(seed, None)[1].sum(), rtol=1e-5)
    assert pq.read_table(tmp_path / "out" / "errors")["path"].to_pylist() == [names[1]]
    tar_of(tars[1], files[5:])
    assert run(tmp_path / "e.onnx", tmp_path / "in", tmp_path / "out", "--part", 3) == 2, "the photographs differ"
    assert rows(tmp_path / "out")["path"] == found["path"]


def test_a_full_disk_stops_the_job_and_loses_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, file, out = folder_of(tmp_path / "in", 6), explainer(tmp_path / "e.onnx"), tmp_path / "out"
    assert run(file, folder, tmp_path / "whole", "--part", 2) == 0
    most, limits = max(map(len, parts(tmp_path / "whole").values())), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert run(file, folder, out, "--part", 2) == 0
    (out / "relevance" / "part-00001.parquet").unlink()  # as if the job had got so far
    before = parts(out)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most // 2, limits[1]))
    try:
        assert run(file, folder, out, "--part", 2) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    told = capfd.readouterr().err
    assert f"cannot write {out / 'relevance' / 'part-00001.parquet'}: " in " ".join(told.split())
    assert "Traceback" not in told
    assert parts(out) == before
    assert not list(out.rglob(".relcompile-*"))
    assert run(file, folder, out, "--part", 2) == 0
    assert parts(out) == parts(tmp_path / "whole")


def test_the_folder_of_another_job_is_left_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder, file, out = folder_of(tmp_path / "in", 2), explainer(tmp_path / "e.onnx"), tmp_path / "out"
    assert run(file, folder, out) == 0
    before = parts(out)
    for other in (["--target", 1], ["--stored", "int8"], ["--keep-channels"]):
        assert run(file, folder, out, *other) == 2
        assert "holds the results of another job" in capfd.readouterr().err
    assert run(explainer(file, "argmax"), folder, out) == 2
    assert run(explainer(file), folder, out, "--format", "zarr") == 2
    assert run(explainer(file), folder, out) == 0
    folder_of(tmp_path / "in" / "more", 1)
    assert run(file, folder, out) == 2
    (out / "job.json").unlink()  # now nobody knows what it was
    assert run(file, folder, out) == 2
    assert "job.json is not, which says of what" in " ".join(capfd.readouterr().err.split())
    assert parts(out) == before


def test_two_processes_do_not_do_one_job(photographs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, file = tmp_path / "out", explainer(tmp_path / "e.onnx")
    command = ["batch", str(file), str(photographs), str(out), "--part", "50"]
    with subprocess.Popen([sys.executable, "-m", "relcompile", *command], stderr=subprocess.DEVNULL) as first:
        while not list(out.glob("relevance/*.parquet")):
            assert first.poll() is None
            time.sleep(0.005)
        assert run(*command[1:]) == 2
        first.send_signal(signal.SIGTERM)
    assert first.returncode == 128 + signal.SIGTERM
    assert "another process is at work" in capfd.readouterr().err
    assert not list(out.rglob(".relcompile-*"))


WRONG: dict[str, tuple[list[str], str]] = {
    "nothing there": (["{e}", "empty", "out"], "no photographs, and no .parquet or .tar files"),
    "no table": (["{e}", "bad.parquet", "out"], "cannot be read as Parquet"),
    "no archive": (["{e}", "bad.tar", "out"], "cannot be read as an uncompressed tar file"),
    "a compressed archive": (["{e}", "small.tar", "out"], "cannot be read as an uncompressed tar file"),
    "no pictures": (["{e}", "numbers.parquet", "out"], "one column of pictures"),
    "results among the photographs": (["{e}", "in", "in/out"], "results would be read as photographs"),
    "no folder": (["{e}", "in", "numbers.parquet"], "numbers.parquet is a file; give another folder"),
    "no such folder": (["{e}", "photos", "out"], "there is no file or folder"),
    "no such class": (["{e}", "in", "out", "--target", "9"], "target 9 does not exist"),
    "workers without Ray": (["{e}", "in", "out", "--workers", "2"], "needs --engine ray"),
    "no explainer": (["in/00000.png", "in", "out"], "cannot load"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_done_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder_of(Path("in"), 1)
    Path("empty").mkdir()
    Path("bad.parquet").write_bytes(b"PAR1")
    Path("bad.tar").write_bytes(b"PAR1")
    tar_of(Path("small.tar"), [Path("in/00000.png")], "w:gz")
    pq.write_table(pa.table({"n": [1]}), "numbers.parquet")
    arguments, told = WRONG[case]
    assert run(*(each.format(e=explainer(Path("e.onnx"))) for each in arguments)) == 2
    message = capfd.readouterr().err
    assert told in message
    assert "Traceback" not in message
    assert not Path("out").exists()  # nothing was begun that would not go on with another command


@pytest.mark.heavy
@pytest.mark.filterwarnings("default")
def test_ray_writes_the_same_bytes_and_calls_the_same_callable(photographs: Path, tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from relcompile.bulk.explain_batch import ExplainBatch

    file = explainer(tmp_path / "e.onnx")
    arguments = ("--part", 100, "--threads", 1)
    assert run(file, photographs, tmp_path / "here", *arguments) == 0
    assert run(file, photographs, tmp_path / "ray", "--engine", "ray", "--workers", 2, *arguments) == 0
    assert parts(tmp_path / "ray") == parts(tmp_path / "here")
    zarr = ("--format", "zarr", "--engine", "ray", "--workers", 2, *arguments)
    assert run(file, photographs, tmp_path / "arrays", *zarr) == 0
    expected = rows(tmp_path / "here")
    for name, array in arrays(tmp_path / "arrays").items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)

    ray.init(include_dashboard=False, num_cpus=2)
    try:
        paths = [{"path": str(path)} for path in sorted(photographs.iterdir())[:64]]
        pool = ray.data.ActorPoolStrategy(size=1)
        asked = {"explainer": str(file), "threads": 1}
        data = ray.data.from_items(paths).map_batches(
            ExplainBatch, fn_constructor_kwargs=asked, batch_size=16, compute=pool
        )
        found = sorted(data.take_all(), key=lambda row: row["path"])
    finally:
        ray.shutdown()
    for seed, row in enumerate(found):
        assert abs(row["relevance"] * row["scale"] - truth(seed, None)[1].sum(0)).max() < 0.01
