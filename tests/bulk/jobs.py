"""Jobs of `relcompile batch`: started as the user does, and their results read by other libraries."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
import zarr

from relcompile.cli.main import main


def run(*arguments: object) -> int:
    """The exit code."""
    try:
        main(["batch", *map(str, arguments)])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def parts(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.parquet"))}


def rows(out: Path) -> dict[str, Any]:
    table = pq.read_table(out / "relevance")
    return {name: table[name].to_pylist() for name in table.column_names if name != "relevance"} | {
        "relevance": table["relevance"].combine_chunks().to_numpy_ndarray()
    }


def arrays(out: Path) -> dict[str, np.ndarray]:
    """By Zarr's own reader, which warns of anything in the group that is none of its own."""
    return {name: np.asarray(array[:]) for name, array in zarr.open_group(out / "relevance.zarr", mode="r").arrays()}


def tar_of(path: Path, files: list[Path], mode: Literal["w", "w:gz"] = "w") -> Path:
    """As WebDataset has it: photographs, with what is said of them beside."""
    with tarfile.open(path, mode) as archive:
        for file in files:
            archive.add(file, f"train/{file.name}")
            archive.addfile(tarfile.TarInfo(f"train/{file.stem}.cls"))
    return path
