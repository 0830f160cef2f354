"""How the program ends when it is told to, or when nobody reads what it prints."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

from relcompile.errors import ExportError

_SIGNALS: Final = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def orderly() -> Generator[None]:
    """SIGTERM and SIGHUP unwind the block, so that it removes its temporary files; a closed stdout ends it quietly.

    The exit codes are 128 + the signal, as shells have it, and 0. A signal that is ignored (`nohup`) stays ignored.
    To be used in the main thread.

    Raises:
        ExportError: standard output is a file on a full disk.
    """
    chosen = [number for number in _SIGNALS if signal.getsignal(number) == signal.SIG_DFL]
    for number in chosen:
        signal.signal(number, _unwind)
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            _close_output()
            raise SystemExit(0) from None
        raise
    except OSError as error:
        if error.errno not in _FULL:  # files have their own message: what is left is standard output
            raise
        _close_output()
        raise ExportError(f"cannot write to standard output: {error.strerror}") from error
    finally:
        for number in chosen:
            signal.signal(number, signal.SIG_DFL)


def _unwind(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _close_output() -> None:
    """What is still to be printed goes nowhere; Python would complain about it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
