"""A checksum of an explainer file inside the file: it tells a damaged file, not a forged one."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import Final

from relcompile.errors import ExplainerFileError
from relcompile.files.paths import open_input

SEAL_KEY: Final = "relcompile_sha256"  # of an entry of the ONNX file's metadata_props
WEIGHTS_KEY: Final = "relcompile_weights"  # of another: checksum and name of a file beside that holds the weights
PREDICTS_KEY: Final = "relcompile_predicts"  # of a prediction alone: the checksum of the model's weights
UNSEALED: Final = "0" * 64
_LARGEST_WEIGHTS: Final = 2**42  # bytes
_BEFORE: Final = SEAL_KEY.encode() + b"\x12\x40"  # how the file goes on behind the key: a text of 64 bytes


def seal(path: Path) -> None:
    """Write the checksum of an ONNX file, whose metadata has `UNSEALED` at `SEAL_KEY`, into that place."""
    start, _, digest = _read(path)
    with path.open("rb+") as file:
        file.seek(start)
        file.write(digest)


def check_seal(path: Path) -> None:
    """Graph, weights and metadata are those that were written. A file without a seal passes.

    It takes as long as SHA-256 of the file: about half a second for a gigabyte.

    Raises:
        ExplainerFileError: they are not.
    """
    _, written, digest = _read(path)
    if digest != written:
        raise ExplainerFileError(
            f"{path} is not what relcompile wrote: its checksum is wrong, so it was damaged or changed; copy it or "
            f"compile it again (a tool that changes explainers has to drop {SEAL_KEY} from the metadata)"
        )


def check_weights_beside(path: Path, said: str | None) -> Path | None:
    """The weights beside an ONNX file are those that it was written with.

    Args:
        path: the ONNX file.
        said: what it has at `WEIGHTS_KEY`; None for a file that holds its weights.

    Returns:
        Where they lie; None if the file holds them.

    Raises:
        ExplainerFileError: they are not.
    """
    if said is None:
        return None
    written, _, name = said.partition(" ")
    weights = path.with_name(Path(name).name)
    with open_input(weights, "the weights", _LARGEST_WEIGHTS, ExplainerFileError) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != written:
        raise ExplainerFileError(f"{weights} is not what relcompile wrote beside {path}: damaged or changed")
    return weights


def _read(path: Path) -> tuple[int, bytes, bytes]:
    """Where the seal stands, what stands there and what should; twice nothing in a file without one."""
    if path.stat().st_size == 0:
        return 0, b"", b""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.rfind(_BEFORE) + len(_BEFORE)
        if start < len(_BEFORE):
            return 0, b"", b""
        with memoryview(content) as whole:
            written = bytes(whole[start : start + len(UNSEALED)])
            digest = hashlib.sha256(whole[:start])
            digest.update(UNSEALED.encode())
            digest.update(whole[start + len(UNSEALED) :])
    return start, written, digest.hexdigest().encode()
