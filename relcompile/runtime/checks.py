"""What `load` is given, checked before ONNX Runtime sees it."""

import os
from pathlib import Path

from relcompile.errors import ExplainerFileError, InputSpecError
from relcompile.files.onnx_bounds import LARGEST_EXPLAINER, check_bounds
from relcompile.files.paths import open_input, require_utf8
from relcompile.files.seal import check_seal


def check_path(path: object) -> None:
    """The type of what `load` is given.

    Raises:
        InputSpecError: it is neither a path nor bytes.
    """
    if not isinstance(path, str | os.PathLike | bytes):
        raise InputSpecError(f"path={path!r}: want the path of an explainer file, or its content as bytes")


def check_file(path: Path) -> None:
    """A file that relcompile may have written: of its form, within its bounds, and undamaged.

    Raises:
        ExplainerFileError: it is not; a model is what people give by mistake, and ONNX Runtime would speak of protobuf.
    """
    if path.suffix.lower() == ".pt2":
        raise ExplainerFileError(
            f"{path} is not for ONNX Runtime: in Python, torch.export.load(path).module() runs "
            "it; its target is an int64 tensor (batch,)"
        )
    require_utf8(path, ExplainerFileError)
    with open_input(path, "the explainer", LARGEST_EXPLAINER, ExplainerFileError) as file:
        start = file.read(9)
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")) or start[8:] == b"{":
        raise ExplainerFileError(f"{path} is a model or its weights, not an explainer; compile it: relcompile {path}")
    check_bounds(path)
    check_seal(path)
