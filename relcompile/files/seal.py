"""A checksum of an explainer file inside the file: it tells a damaged file, not a forged one."""

from __future__ import annotations

import hashlib
import mmap
from pathlib import Path
from typing import Final

from relcompile.errors import ExplainerFileError

SEAL_KEY: Final = "relcompile_sha256"  # of an entry of the ONNX file's metadata_props
UNSEALED: Final = "0" * 64
_BEFORE: Final = SEAL_KEY.encode() + b"\x12\x40"  # how the file goes on behind the key: a text of 64 bytes


def sealed(content: bytes) -> bytes:
    """An ONNX file whose metadata has `UNSEALED` at `SEAL_KEY` -> the same with its checksum there."""
    start = content.rindex(_BEFORE + UNSEALED.encode()) + len(_BEFORE)
    digest = hashlib.sha256(content).hexdigest().encode()
    return content[:start] + digest + content[start + len(digest) :]


def check_seal(path: Path) -> None:
    """Graph, weights and metadata are those that were written. A file without a seal passes.

    It takes as long as SHA-256 of the file: about a second for a gigabyte.

    Raises:
        ExplainerFileError: they are not.
    """
    if path.stat().st_size == 0:
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = content.rfind(_BEFORE) + len(_BEFORE)
        if start < len(_BEFORE):
            return
        with memoryview(content) as whole:
            written = bytes(whole[start : start + len(UNSEALED)])
            digest = hashlib.sha256(whole[:start])
            digest.update(UNSEALED.encode())
            digest.update(whole[start + len(UNSEALED) :])
    if digest.hexdigest().encode() != written:
        raise ExplainerFileError(
            f"{path} is not what relcompile wrote: its checksum is wrong, so it was damaged or changed; copy it or "
            f"compile it again (a tool that changes explainers has to drop {SEAL_KEY} from the metadata)"
        )
