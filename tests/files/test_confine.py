"""What a process can still do after it has given up its rights: the kernel answers, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from relcompile.files import confine as confine_module
from relcompile.files.confine import Limits, _landlock_version, _limit_files

needs_landlock = pytest.mark.skipif(_landlock_version() < 2, reason="this kernel has no Landlock")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has these limits")

DEEDS = """
import fcntl, json, os, resource, signal, socket, subprocess, sys, tempfile
from pathlib import Path
from relcompile.files.confine import Limits, confine

outside = Path(tempfile.mkdtemp())
(outside / "precious").write_text("kept")
folder = outside / "own"
folder.mkdir()


def renamed():
    (folder / "sub").mkdir()
    (folder / "sub" / "x").write_text("x")
    (folder / "sub" / "x").replace(folder / "x")
    (folder / "sub").rmdir()


deeds = {
    "read": lambda: (outside / "precious").read_text(),
    "write inside": lambda: (folder / "result").write_text("x"),
    "rename inside": renamed,
    "write to nowhere": lambda: Path(os.devnull).write_text("x"),
    "signal to itself": lambda: os.kill(os.getpid(), 0),
    "write outside": lambda: (outside / "new").write_text("x"),
    "write over": lambda: (outside / "precious").write_text("x"),
    "truncate": lambda: os.truncate(outside / "precious", 0),
    "delete": lambda: (outside / "precious").unlink(),
    "rename outside": lambda: (folder / "result").rename(outside / "precious"),
    "hard link": lambda: os.link(outside / "precious", folder / "link"),
    "symbolic link": lambda: os.symlink(outside / "precious", folder / "link"),
    "named pipe": lambda: os.mkfifo(folder / "pipe"),
    "program": lambda: subprocess.run(["true"]),
    "TCP": lambda: socket.socket(),
    "UDP": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "local socket": lambda: socket.socket(socket.AF_UNIX),
    "signal to the parent": lambda: os.kill(os.getppid(), 0),
    "memory of the parent": lambda: open(f"/proc/{os.getppid()}/mem", "rb").read(1),
    "type into the terminal": lambda: fcntl.ioctl(0, 0x5412, b"x"),
    "memory": lambda: bytearray(2**31),
    "large file": lambda: (folder / "large").write_bytes(bytes(2**21)),
    "more memory": lambda: resource.setrlimit(resource.RLIMIT_DATA, (2**40, 2**40)),
    "owner of a foreign file": lambda: os.chown(outside / "precious", 12345, 12345),
}
unlimited = confine(folder, Limits(memory=2**30, cpu=60, file=2**20))
found = {}
for name, deed in deeds.items():
    try:
        deed()
        found[name] = None
    except Exception as error:
        found[name] = type(error).__name__
print(json.dumps({"unlimited": unlimited, "found": found, "precious": (outside / "precious").read_text()}))
"""
GONE = (
    *("write outside", "write over", "truncate", "delete", "rename outside", "hard link", "symbolic link"),
    *("named pipe", "program", "TCP", "UDP", "local socket", "signal to the parent", "memory of the parent"),
    *("type into the terminal", "memory", "large file", "more memory", "owner of a foreign file"),
)
SINCE = {"truncate": 3, "signal to the parent": 6}  # versions of Landlock
ALLOWED = ("read", "write inside", "rename inside", "write to nowhere", "signal to itself")


@cache
def after() -> dict[str, dict[str, str | None]]:
    run = [sys.executable, "-c", DEEDS]
    found: dict[str, dict[str, str | None]] = json.loads(subprocess.run(run, capture_output=True, check=True).stdout)
    return found


@needs_landlock
def test_everything_is_limited_here() -> None:
    assert after()["unlimited"] == []
    assert after()["precious"] == "kept"
    assert len(after()["found"]) == len(ALLOWED) + len(GONE)


@needs_landlock
@pytest.mark.parametrize("deed", ALLOWED)
def test_what_is_left(deed: str) -> None:
    assert after()["found"][deed] is None


@needs_landlock
@pytest.mark.parametrize("deed", GONE)
def test_what_is_gone(deed: str) -> None:
    if _landlock_version() < SINCE.get(deed, 0):
        pytest.skip("this kernel's Landlock does not know it")
    assert after()["found"][deed] is not None


@pytest.mark.parametrize("version", [-1, 0, 1])
def test_an_old_kernel_limits_no_files(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine_module, "_landlock_version", lambda: version)
    assert not _limit_files(tmp_path)
    (tmp_path / "still").write_text("possible")


@needs_linux
def test_another_processor_forbids_no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confine_module.platform, "machine", lambda: "sparc64")
    assert not confine_module._forbid_sockets()


@needs_linux
def test_other_threads_would_keep_their_rights() -> None:
    code = (
        "import threading; from relcompile.files.confine import *\n"
        "threading.Thread(target=threading.Event().wait, args=(20,), daemon=True).start()\n"
        "confine('.', Limits(2**30, 60, 2**20))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "too late, there are others" in done.stderr


@needs_linux
def test_a_stricter_limit_of_the_user_stays() -> None:
    code = (
        "import resource; from pathlib import Path; from relcompile.files.confine import *\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (10, 20))\n"
        f"confine(Path(), {Limits(memory=2**30, cpu=60, file=2**20)})\n"
        "print(resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_FSIZE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"(10, 20) {2**20}"
