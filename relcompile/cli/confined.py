"""Where a command that reads the model file of a stranger does its work: in a child process with few rights.

The process that was called stays what it is. It imports neither torch nor the file, makes the temporary folder of the
result, starts the child with the same arguments, and moves the result into place when the child has ended well. What
the child prints goes to the same terminal, and its exit code is that of the command.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from relcompile.errors import ExportError, ModelFileError
from relcompile.files.confine import Limits
from relcompile.files.paths import atomic_path, identity, told_of

_HOUR, _GIB = 3600, 2**30
_PATIENCE: Final = 5  # seconds between asking the child to end and ending it
_BETWEEN_LOOKS: Final = 0.5  # seconds
_SLEEP: Final = {"OMP_WAIT_POLICY": "PASSIVE"}  # torch's threads: spinning, they wait for each other on a busy machine
_WAY_OUT: Final = "--trust-model-file lifts the limits, if you trust the file"
_START: Final = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["path"]
from relcompile.files.confine import Limits, confine
unlimited = confine(job["folder"], Limits(**job["limits"]))
from relcompile.cli.main import in_child
in_child(job, unlimited)
"""  # before numpy, which starts threads; with -P: a folder with a torch.py is not searched unless the parent does


class Place:
    """Where the work is done: here, in the process that was called. So it is for Python code."""

    @property
    def folder(self) -> Path | None:
        """The only folder that can be written into; None: all can."""
        return None

    def result(self, target: Path) -> AbstractContextManager[Path]:
        """The path to write to, which becomes `target` in the end; see `relcompile.files.paths.atomic_path`."""
        return atomic_path(target)


@dataclass(frozen=True)
class Console(Place):
    """The process that a shell started: what a file has a say in is left to a child.

    Args:
        arguments: of the command line.
    """

    arguments: Sequence[str]

    def run(self, model: Path, result: Path, state: Path | None = None) -> None:
        """Do the whole command in a child that may write into the folder of `result` alone.

        Args:
            model: the file that is not trusted.
            result: the temporary file for the result, alone in a folder.
            state: what the child makes under the same name in that folder, as often as it likes, is moved here; and
                removed when all is done. Such work takes as long as its data does: its time is not limited.

        Raises:
            ModelFileError: the child was stopped, by a limit or by a fault of native code.
            SystemExit: it ended by itself, and not well.
        """
        limits = limits_for(model) if state is None else replace(limits_for(model), cpu=sys.maxsize)
        folder = str(result.parent)
        job = {"path": sys.path, "arguments": self.arguments, "model": str(model), "result": str(result)}
        job |= {"folder": folder, "limits": asdict(limits)}
        command = [sys.executable, "-P", "-c", _START, json.dumps(job)]
        environment = {**_SLEEP, **os.environ, "TMPDIR": folder}
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment) as child:
            try:
                code = child.wait() if state is None else _wait_and_keep(child, result.parent / state.name, state)
            except BaseException:
                _end(child)
                raise
        if code < 0:
            raise ModelFileError(f"the work on {model} was stopped: {_why(-code, limits)}; {_WAY_OUT}")
        if code:
            raise SystemExit(code)


@dataclass(frozen=True)
class Child(Place):
    """The process with few rights.

    Args:
        model: the file that is not trusted.
        file: the temporary file of the result.
        limits: what it may take.
    """

    model: Path
    file: Path
    limits: Limits

    @property
    def folder(self) -> Path:
        return self.file.parent

    @contextmanager
    def result(self, target: Path) -> Generator[Path]:
        try:
            with told_of(target, self.file):
                yield self.file
        except Exception as error:
            reason = None if isinstance(error, ExportError) else self._limit_behind(error)
            if reason is None:
                raise
            raise ModelFileError(f"the work on {self.model} was stopped: {reason}; {_WAY_OUT}") from error

    def _limit_behind(self, error: BaseException | None) -> str | None:
        """Which limit an error comes from, if it comes from one."""
        while error is not None:
            told = str(error)
            if isinstance(error, MemoryError) or "allocate memory" in told or "bad_alloc" in told:
                return f"it needs more memory than {_memory(self.limits)}"
            if isinstance(error, PermissionError) and str(error.filename) != str(self.model):
                return f"{told}: it may write nothing but the result, start no program and use no network"
            error = error.__cause__ or error.__context__
        return None


def start(job: dict[str, Any]) -> Child:
    """The place of the work, in a process that has given up all rights that the job does not need."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches parent and child: the parent ends both
    return Child(Path(job["model"]), Path(job["result"]), Limits(**job["limits"]))


def limits_for(model: Path) -> Limits:
    """An hour of every processor, three quarters of the memory, and room for an explainer of any kind."""
    try:
        size = model.stat().st_size
    except OSError:  # the child says what is wrong with it
        size = 0
    return Limits(memory=_machine_memory() * 3 // 4, cpu=_HOUR * (os.cpu_count() or 1), file=8 * size + 4 * _GIB)


def _machine_memory() -> int:
    """Bytes of the machine, or of the container where it has less."""
    if sys.platform == "win32":
        return sys.maxsize
    try:
        container = int(Path("/sys/fs/cgroup/memory.max").read_text())
    except (OSError, ValueError):
        container = sys.maxsize
    return min(container, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _wait_and_keep(child: subprocess.Popen[bytes], made: Path, state: Path) -> int:
    """The exit code; meanwhile, and at last, what the child makes goes where it is to be."""
    ours, code = identity(state), None
    while code is None:
        with suppress(subprocess.TimeoutExpired):
            code = child.wait(_BETWEEN_LOOKS)
        if made.is_file():
            made.replace(state)
            ours = identity(state)
    if code == 0 and ours is not None and identity(state) == ours:
        state.unlink()
    return code


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()


def _why(number: int, limits: Limits) -> str:
    name = signal.Signals(number).name
    if name == "SIGXCPU":
        return f"it took more than {limits.cpu:,} seconds of processor time"
    return f"{name} ended it, so native code failed or there was no memory left; it may take {_memory(limits)}"


def _memory(limits: Limits) -> str:
    return f"{limits.memory / _GIB:.1f} GiB, three quarters of what there is"
