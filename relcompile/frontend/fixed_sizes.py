"""Where does a model fix the size of an axis that should be free? torch says that it does, and logs the moment."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import torch

_LOGGER: Final = "torch.fx.experimental.symbolic_shapes"
_DECIDED: Final = ("set_replacement", "[guard added]")  # what torch logs when it decides about a size
_AXIS: Final = re.compile(
    r"L\['(?P<input>\w+)'\]\.size\(\)\[(?P<axis>[1-9]\d*)\]"
)  # torch's name of one, not the batch
_LISTED: Final = 3
_NOT_THE_USERS: Final = tuple(str(Path(file).parent) for file in (torch.__file__, str(Path(__file__).parent)))


def fixed_size(error: Exception, export: Callable[[], Any]) -> str | None:
    """What is said of a free axis that is none: the user's lines during which torch decides about a size.

    Args:
        error: what `export` raised.
        export: is called once more.
    """
    axis = _AXIS.search(str(error))
    if axis is None:
        return None
    with _watched() as handler, suppress(Exception):
        export()
    name = f"{axis['input']}:{axis['axis']}"
    places = "".join(f"\n  at {line}" for line in [*dict.fromkeys(handler.lines)][-_LISTED:])
    return (
        f"the model fixes the size of axis {name}, which should be free{places}\n  a loop over an axis, and its size "
        f"as a number, hold for one size: write tensor operations and x.shape, or leave --dynamic {name} out"
    )


class _Lines(logging.Handler):
    """Notes which line of the user's is running when torch decides."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if not any(word in record.getMessage() for word in _DECIDED):
            return
        frames = [
            f for f in traceback.extract_stack() if f.name == "forward" and not f.filename.startswith(_NOT_THE_USERS)
        ]
        self.lines += [f"{Path(f.filename).name}:{f.lineno}: {f.line or '(no source)'}" for f in frames[-1:]]


@contextmanager
def _watched() -> Generator[_Lines]:
    logger, handler = logging.getLogger(_LOGGER), _Lines()
    level, propagate, disabled = logger.level, logger.propagate, logging.root.manager.disable
    others, own = logger.handlers, list[logging.Handler]([handler])
    logger.handlers = own
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.disable(logging.NOTSET)
    try:
        yield handler
    finally:
        logger.handlers, logger.propagate = others, propagate
        logger.setLevel(level)
        logging.disable(disabled)
