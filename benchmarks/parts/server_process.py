"""A server as users have it: a process of its own, on loopback; and what its answers hold."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
from tritonclient.http import InferResult

_PATIENCE = 60  # seconds


@contextmanager
def running(*arguments: object, port: int = 0) -> Generator[tuple[str, subprocess.Popen[str]]]:
    """`relcompile serve`, at a port (0: any that is free); yields the host and port that it told, and the process."""
    command = [sys.executable, "-m", "relcompile", "serve", "--port", str(port), *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=_as_from_a_terminal) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        found = re.search(r"http://(\S+:\d+)", told)
        assert found, told + process.stderr.read()
        try:
            yield found[1], process
        finally:
            process.kill()


def _as_from_a_terminal() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would their children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def end(process: subprocess.Popen[str], number: signal.Signals = signal.SIGTERM) -> int:
    """Tell it to end; its exit code."""
    process.send_signal(number)
    return process.wait(_PATIENCE)


def array_of(answer: InferResult, name: str) -> np.ndarray:
    """An output that must be there."""
    array = answer.as_numpy(name)
    assert array is not None, f"there is no output {name}"
    return array
