"""`relcompile evaluate` and `relcompile report` as a user meets them."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from relcompile.cli.commands.evaluate import rule_names
from relcompile.errors import EvaluationError
from relcompile.evaluation.results import Results
from tests.cli.test_cli import run
from tests.evaluation.networks import planted

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose truth is known, pictures, and where their objects are."""
    network, images, masks = planted()
    torch.save(network, tmp_path / "model.pt")
    np.save(tmp_path / "data.npy", images.numpy())
    np.save(tmp_path / "masks.npy", masks)
    np.save(tmp_path / "numbers.npy", masks.astype(np.float32))
    return tmp_path


def evaluate(folder: Path, *options: object, capsys: Capture) -> tuple[int, str, str]:
    common = ("--input", "1x1x16x16", "-o", folder / "run.parquet")
    return run("evaluate", folder / "model.pt", folder / "data.npy", *common, *options, capsys=capsys)


def test_from_model_to_page(folder: Path, capsys: Capture) -> None:
    options = ("--rules", "gradient*input,z+,bias=split", "--metrics", "srg,localisation")
    code, out, err = evaluate(folder, *options, "--masks", folder / "masks.npy", capsys=capsys)
    assert code == 0, err
    assert "SRG" in out
    results = Results.load(folder / "run.parquet")
    assert results.rules == ["gradient*input", "z+,bias=split"]
    assert results.of("gradient*input", "mass") == pytest.approx(np.ones(6))
    with (folder / "run.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(results.rows)
    assert [float(row["value"]) for row in rows if row["metric"] == "rank"] == [1.0] * 12
    assert not list(folder.glob("*partial*"))
    code, _, err = run("report", folder / "run.parquet", capsys=capsys)
    assert code == 0, err
    assert "z+,bias=split" in (folder / "run.html").read_text(encoding="utf-8")


def test_goes_on_after_being_killed(folder: Path, capsys: Capture) -> None:
    """Killed after the first unit; the second run begins there, and ends as one that was never killed."""
    options = ["--rules", "gradient,z+", "--metrics", "singular,random-logit,stability"]
    line = [sys.executable, "-m", "relcompile", "evaluate", "model.pt", "data.npy", "--input", "1x1x16x16"]
    state = folder / "run.parquet.relcompile-partial"
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as here: another number would be another evaluation
    begun = [*line, "-o", "run.parquet", *options, "--trust-model-file"]
    with subprocess.Popen(begun, cwd=folder, env=one_thread) as process:
        end = time.monotonic() + 120
        while not state.exists() and time.monotonic() < end:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
    assert state.exists()
    assert not (folder / "run.parquet").exists()
    before = len(Results.load(state).done)
    code, _, err = evaluate(folder, *options, "--resume", capsys=capsys)
    assert code == 0, err
    assert f"resumed after {before} units" in err
    found = Results.load(folder / "run.parquet")
    code, _, err = evaluate(folder, *options, capsys=capsys)
    assert code == 0, err
    again = Results.load(folder / "run.parquet")
    assert [str(row) for row in found.rows] == [str(row) for row in again.rows]
    assert found.done == again.done


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metrics", "srgg"), "no metric called srgg; there are: all, csc"),
        (("--metrics", "localisation"), "give masks"),
        (("--rules", "z++"), "nearest: z+"),
        (("--rules", "z+,z+"), "each of them once"),
        (("--masks", "numbers.npy"), "are float32; want bool"),
        (("--masks", "nothing.npy"), "no such file"),
    ],
)
def test_wrong_input_is_one_message(
    options: tuple[str, str], message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = evaluate(folder, *options, capsys=capsys)
    assert (code, err.count("error:")) == (2, 1)
    assert message in err
    assert not (folder / "run.parquet").exists()


def test_another_state_is_not_gone_on_from(folder: Path, capsys: Capture) -> None:
    options = ("--rules", "gradient", "--metrics", "random-logit")
    evaluate(folder, *options, capsys=capsys)
    (folder / "run.parquet").rename(folder / "run.parquet.relcompile-partial")
    code, _, err = evaluate(folder, *options, "--seed", 1, "--resume", capsys=capsys)
    assert code == 2
    assert "another settings" in err
    (folder / "run.parquet.relcompile-partial").write_text("somebody's")
    code, _, err = evaluate(folder, *options, capsys=capsys)
    assert code == 2
    assert (folder / "run.parquet.relcompile-partial").read_text() == "somebody's"


def test_a_page_of_something_else(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "x.parquet").write_text("no table")
    code, _, err = run("report", tmp_path / "x.parquet", capsys=capsys)
    assert code == 2
    assert "is not a file that `relcompile evaluate` wrote" in err
    assert not (tmp_path / "x.html").exists()


def test_rule_names_keep_their_parameters() -> None:
    assert rule_names("gamma,z+,bias=split,root=5") == ["gamma", "z+,bias=split", "root=5"]
    with pytest.raises(EvaluationError, match="one or more"):
        rule_names(" , ")


def test_networks_of_other_shapes_are_refused(tmp_path: Path, capsys: Capture) -> None:
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 2)), tmp_path / "model.pt")
    np.save(tmp_path / "data.npy", np.zeros((3, 4), np.float32))
    code, _, err = run("evaluate", tmp_path / "model.pt", tmp_path / "data.npy", "-i", "1x4", capsys=capsys)
    assert code == 2
    assert "want floats (N, C, H, W)" in err
