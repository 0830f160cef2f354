"""The child that works on a model file: what comes of it when the file gets code to run, and what goes through."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from relcompile.calibration.store import Calibration
from relcompile.cli import confined, main
from relcompile.files.confine import Limits, _landlock_version
from tests.processes import hears_signals

pytestmark = pytest.mark.skipif(_landlock_version() < 2, reason="this kernel has no Landlock")

HOSTILE = """
import os, signal, socket, subprocess
from pathlib import Path

import torch
from torch import nn

from relcompile.calibration.state import StateFile
from relcompile.cli.commands import calibrate as calibrate_command

MARKER = Path(os.environ["MARKER"])


def spin():
    print("spins", os.getpid(), flush=True)
    while True:
        pass


def eat():
    held = []
    while True:
        held.append(torch.ones(2**25))


def tire():
    calibrate_command._SAVE_EVERY = -1
    StateFile.write = lambda *arguments: (budget.pop(), write(*arguments))


budget = [None] * int(os.environ.get("BUDGET", 0))
write = StateFile.write


class Deed(nn.Module):
    deeds = {
        "write": lambda: MARKER.write_text("owned"),
        "launch": lambda: subprocess.run(["touch", MARKER], check=True),
        "dial": lambda: socket.create_connection(("127.0.0.1", int(os.environ["PORT"])), timeout=5),
        "eat": eat,
        "spin": spin,
        "tire": tire,
        "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    }

    def forward(self, x):
        self.deeds[self.deed]()
        return x.relu()
"""
DEEDS = {
    "write": "Permission denied",
    "launch": "start no program",
    "dial": "use no network",
    "eat": "more memory than 2.0 GiB",
    "spin": "more than 9 seconds of processor time",
    "crash": "SIGSEGV ended it",
}
LIMITS = Limits(memory=2**31, cpu=9, file=2**30)


class Deed(nn.Module):
    """Pickled under the name of the package that is on the path of the child alone."""

    def __init__(self, deed: str) -> None:
        super().__init__()
        vars(self)["deed"] = deed


Deed.__module__ = "hostile"
Capture = pytest.CaptureFixture[str]


def console(*arguments: object, capfd: Capture) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `relcompile ARGUMENTS` as a shell starts it, but for the first process."""
    words = [str(argument) for argument in arguments]
    try:
        main.main(words, confined.Console(words))
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    return code, out, err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "hostile.py").write_text(HOSTILE)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.syspath_prepend(str(tmp_path / "package"))
    monkeypatch.setenv("MARKER", str(tmp_path / "work" / "marker"))
    return tmp_path / "work"


def network(*further: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), *further)


def save_hostile(path: Path, deed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "hostile", sys.modules[__name__])
        torch.save(network(Deed(deed)), path)


@pytest.mark.parametrize("deed", DEEDS)
def test_what_a_model_cannot_do(deed: str, folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    save_hostile(folder / "m.pt", deed, monkeypatch)
    monkeypatch.setattr(confined, "limits_for", lambda model: LIMITS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("PORT", str(server.getsockname()[1]))
        code, _, err = console("m.pt", "--input", "1x4", "--allow", "hostile", capfd=capfd)
    assert code == 2
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert DEEDS[deed] in err
    assert "the work on m.pt was stopped" in err
    assert [path.name for path in folder.iterdir()] == ["m.pt"]


def test_calibrate_has_the_same_limits(folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    save_hostile(folder / "m.pt", "write", monkeypatch)
    (folder / "out").mkdir()
    _save_data(folder)
    code, _, err = console("calibrate", "m.pt", "d.npy", "-o", "out/p", "--allow", "hostile", capfd=capfd)
    assert code == 2
    assert err.count("error:") == 1
    assert "start no program" in err
    assert not list((folder / "out").iterdir())
    assert not (folder / "marker").exists()


def _save_data(folder: Path) -> None:
    import numpy as np

    np.save(folder / "d.npy", np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32))


def test_a_file_that_is_trusted_is_worked_on_here(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    torch.save(network(), folder / "m.pt")
    monkeypatch.setattr(subprocess, "Popen", None)
    assert console("m.pt", "--trust-model-file", capfd=capfd)[0] == 0
    assert (folder / "m.z+.onnx").is_file()


def test_the_result_is_the_same(folder: Path, capfd: Capture) -> None:
    torch.save(network(), folder / "m.pt")
    code, out, err = console("m.pt", "-o", "child.onnx", capfd=capfd)
    said = [line for line in err.splitlines() if not line.startswith("relcompile: ")]  # else the steps
    assert (code, said) == (0, ["input: 1x4 (assumed; --input changes it)"])
    assert "child.onnx" in out
    with pytest.raises(SystemExit, match="0"):
        main.main(["m.pt", "-o", "here.onnx"])
    assert (folder / "child.onnx").read_bytes() == (folder / "here.onnx").read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == ["child.onnx", "here.onnx", "m.pt"]


@pytest.mark.parametrize(("asked", "policy"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_sleep_while_they_wait(
    asked: dict[str, str], policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = list[dict[str, str]]()

    def popen(*_command: object, env: dict[str, str], **_others: object) -> None:
        given.append(env)
        raise InterruptedError

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(InterruptedError):
        confined.Console(["m.pt"]).run(tmp_path / "m.pt", tmp_path / "result")
    assert given[0]["OMP_WAIT_POLICY"] == policy


def test_a_calibration_and_its_explainer(folder: Path, capfd: Capture) -> None:
    torch.save(network(), folder / "m.pt")
    _save_data(folder)
    assert console("calibrate", "m.pt", "d.npy", "-o", "p.safetensors", capfd=capfd)[0] == 0
    assert Calibration.load(folder / "p.safetensors").samples == 8
    code, _, err = console(
        *("m.pt", "-r", "patternattribution", "--calibration", "p.safetensors", "-o", "e.pt2"), capfd=capfd
    )
    assert (code, err.count("error")) == (0, 0)
    assert sorted(path.name for path in folder.iterdir()) == ["d.npy", "e.pt2", "m.pt", "p.safetensors"]


def test_an_interrupted_calibration_goes_on(folder: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    save_hostile(folder / "m.pt", "tire", monkeypatch)
    _save_data(folder)
    command = ("calibrate", "m.pt", "d.npy", "-o", "p", "--batch", 1, "--allow", "hostile")
    monkeypatch.setenv("BUDGET", "5")
    assert console(*command, capfd=capfd)[0] != 0
    assert sorted(path.name for path in folder.iterdir()) == ["d.npy", "m.pt", "p.relcompile-partial"]
    monkeypatch.setenv("BUDGET", "50")
    code, _, err = console(*command, "--resume", capfd=capfd)
    assert (code, err.count("error:")) == (0, 0), err
    assert re.search("resumed after 5 of 8 samples", err)
    assert Calibration.load(folder / "p").samples == 8
    assert sorted(path.name for path in folder.iterdir()) == ["d.npy", "m.pt", "p"]


FAILURES = {
    "no such folder": (["m.pt", "-o", "nowhere/e.onnx"], 2, "cannot write nowhere/e.onnx"),
    "over the model": (["m.pt", "-o", "m.onnx"], 2, "would destroy the input m.pt"),
    "wrong rule": (["m.pt", "-r", "zz"], 2, "nearest"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_messages_and_exit_codes_go_through(case: str, folder: Path, capfd: Capture) -> None:
    arguments, code, message = FAILURES[case]
    torch.save(network(), folder / "m.pt")
    (folder / "m.onnx").hardlink_to(folder / "m.pt")
    before = sorted(folder.iterdir())
    found, out, err = console(*arguments, capfd=capfd)
    assert (found, out, err.count("error:")) == (code, "", 1)
    assert message in err
    assert sorted(folder.iterdir()) == before


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@contextmanager
def ended(process: subprocess.Popen[str]) -> Generator[None]:
    """Nothing that failed is waited for."""
    try:
        yield
    finally:
        process.kill()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_ends_both(number: int, code: int, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_hostile(folder / "m.pt", "spin", monkeypatch)
    command = [sys.executable, "-m", "relcompile", "m.pt", "--allow", "hostile"]
    path = os.pathsep.join([str(folder.parent / "package"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, preexec_fn=hears_signals, **pipes) as parent, ended(parent):
        assert parent.stdout is not None
        child = int(parent.stdout.readline().split()[1])
        parent.send_signal(number)
        assert parent.wait(30) == code
        deadline = time.monotonic() + 30
        while _is_alive(child) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _is_alive(child)
        assert "Traceback" not in (parent.stderr.read() if parent.stderr else "")
    if number != signal.SIGKILL:
        assert [path.name for path in folder.iterdir()] == ["m.pt"]


def test_what_cannot_be_limited_is_said(folder: Path, capfd: Capture) -> None:
    torch.save(network(), folder / "m.pt")
    before = signal.getsignal(signal.SIGINT)
    job = {"arguments": ["m.pt"], "model": "m.pt", "result": "e.onnx", "limits": vars(LIMITS)}
    try:
        with pytest.raises(SystemExit) as stop:
            main.in_child(job, ["the network", "memory and time"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert stop.value.code == 0
    assert re.search(r"sets no limits to the network, memory and time", capfd.readouterr().err)
    assert (folder / "e.onnx").is_file()


def test_limits_leave_room_for_honest_work(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(bytes(1000))
    limits = confined.limits_for(tmp_path / "m.pt")
    assert limits.cpu >= 3600
    assert limits.file == 8 * 1000 + 2**32
    assert 0 < limits.memory < 2**60
    assert confined.limits_for(tmp_path / "none") == Limits(limits.memory, limits.cpu, 2**32)
