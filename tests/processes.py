"""Processes that tests start."""

from __future__ import annotations

import signal


def hears_signals() -> None:
    """Before a process starts: what a shell's background jobs and `nohup` ignore is heard again."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
