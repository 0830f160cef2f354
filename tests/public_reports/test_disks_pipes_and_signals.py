"""Signals, closed pipes and full disks: no temporary file stays, and the exit code says what happened."""

from __future__ import annotations

import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from relcompile.calibration.store import CALIBRATION, write_tensors
from relcompile.cli import main as command_line
from relcompile.errors import ExportError
from relcompile.files.paths import atomic_path
from tests.processes import hears_signals

WAIT = """
import sys, time
from pathlib import Path
from relcompile.cli.orderly import orderly
from relcompile.files.paths import atomic_path
with orderly(), atomic_path(Path("x.onnx")) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(number: signal.Signals, tmp_path: Path) -> None:
    pipes: Any = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WAIT], preexec_fn=hears_signals, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert list(tmp_path.glob(".relcompile-*/x.onnx"))
        process.send_signal(number)
        assert process.wait(30) == 128 + number
    assert list(tmp_path.iterdir()) == []


def test_kill_leaves_no_half_file(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_text("before")
    pipes: Any = {"cwd": tmp_path, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", WAIT], **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()
    assert (tmp_path / "x.onnx").read_text() == "before"
    assert all(path.name.startswith(".relcompile-") for path in tmp_path.iterdir() if path.name != "x.onnx")


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_the_command_line_is_orderly(handler: signal.Handlers, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, handler)
    monkeypatch.setattr(command_line, "app", lambda arguments, obj: signal.raise_signal(signal.SIGHUP))
    try:
        if handler is signal.SIG_IGN:  # as under nohup
            command_line.main([])
        else:
            with pytest.raises(SystemExit, match=str(128 + signal.SIGHUP)):
                command_line.main([])
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


PRINT = "from relcompile.cli.main import main; main(['rules', '--layer'])"


@pytest.mark.parametrize(
    ("shell", "code", "message"),
    [
        ("{} | head -1 > /dev/null; exit ${{PIPESTATUS[0]}}", 0, ""),
        ("{} > /dev/full", 2, "error: cannot write to standard output: No space left on device\n"),
    ],
    ids=["closed", "full"],
)
def test_output_that_nobody_takes(shell: str, code: int, message: str) -> None:
    command = shell.format(f'"{sys.executable}" -c "{PRINT}"')
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (code, message)


def write_calibration(path: Path) -> None:
    write_tensors(path, CALIBRATION, {"layer": torch.zeros(100_000)}, {})


def write_nested(path: Path) -> None:
    with atomic_path(path) as temporary:
        write_calibration(temporary)


@pytest.mark.parametrize("write", [write_calibration, write_nested])
def test_a_full_disk_is_told_of_the_target(write: Callable[[Path], None], tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ExportError) as caught:
            write(tmp_path / "p.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'p.safetensors'}: ")
    assert "File too large" in str(caught.value)
    assert ".relcompile-" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["made", "removed"])
def test_a_folder_whose_making_or_removing_is_broken_off_goes_away(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a signal does it: an exception from inside of the call, which has done its work or not."""
    broken = list[str]()
    make, remove = Path.mkdir, shutil.rmtree

    def mkdir(folder: Path, *args: Any, **keywords: Any) -> None:
        make(folder, *args, **keywords)
        if moment == "made":
            broken.append("made")
            raise SystemExit(143)

    def rmtree(*args: Any, **keywords: Any) -> None:
        if moment == "removed" and not broken:
            broken.append("removed")
            raise SystemExit(143)
        remove(*args, **keywords)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(SystemExit), atomic_path(tmp_path / "x.onnx") as temporary:
        temporary.write_bytes(b"x")
    assert broken == [moment]
    assert list(tmp_path.glob(".relcompile-*")) == []
