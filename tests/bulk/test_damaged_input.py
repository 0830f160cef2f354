"""Archives of photographs that are damaged: one message, and nothing is read that is not a photograph of theirs."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from relcompile.bulk.explain_batch import ExplainBatch
from relcompile.bulk.parts import fingerprint, parts_of
from relcompile.errors import InputSpecError
from tests.bulk import photographs


def tar(path: Path, name: str = "a.png", headers: dict[str, str] | None = None, size: bytes = b"") -> Path:
    """One file of three bytes; `size` takes the place of its size, and the checksum is right again."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo(name)
        info.pax_headers, info.size = headers or {}, 3
        archive.addfile(info, io.BytesIO(b"abc"))
    content = bytearray(made.getvalue())
    if size:
        content[124:136] = size
        content[148:156] = b"%06o\0 " % (256 + sum(content[:148]) + sum(content[156:512]))
    path.write_bytes(content)
    return path


def parquet(path: Path, where: bytes, there: bytes) -> Path:
    """Two photographs with their paths; `there` takes the place of `where`, wherever it stands."""
    pq.write_table(pa.table({"image": [b"1", b"2"], "path": ["one.png", "two.png"]}), path, compression="none")
    content = path.read_bytes()
    assert where in content
    path.write_bytes(content.replace(where, there))
    return path


def read(path: Path) -> list[Any]:
    return [part.read() for part in parts_of(path, 2)]


DAMAGED: dict[str, tuple[str, dict[str, Any]]] = {
    "a negative size": ("x.tar", {"headers": {"size": "-7"}}),
    "a negative size in base 256": ("x.tar", {"size": b"\xff" * 12}),
    "a size of 30 digits": ("x.tar", {"headers": {"size": "9" * 30}}),
    "a size of 2^88": ("x.tar", {"size": b"\x80" + b"\xff" * 11}),
    "a size beyond the file": ("x.tar", {"size": b"77777777777\0"}),
    "no map of holes": ("x.tar", {"headers": {"GNU.sparse.map": "1,x"}}),
    "half a map of holes": ("x.tar", {"headers": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}}),
    "a path that is not UTF-8": ("x.parquet", {"where": b"one.png", "there": b"\xffne.png"}),
    "a page that is none": ("x.parquet", {"where": b"\x01\x00\x00\x001", "there": b"\xff\xff\xff\xff1"}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_one_message_names_the_file(name: str, tmp_path: Path) -> None:
    file, damage = DAMAGED[name]
    make: Any = tar if file.endswith(".tar") else parquet
    path = make(tmp_path / file, **damage)
    with pytest.raises(InputSpecError, match=f"{path} cannot be read as "):
        read(path)


def test_names_that_are_not_utf8_are_spelt_out(tmp_path: Path) -> None:
    """In what tables can hold: of the photographs, and in the errors that name them."""
    parts = parts_of(tar(tmp_path / "x.tar", "\udcff.png"), 2)
    assert len(fingerprint(parts)) == 64
    explain = ExplainBatch(str(photographs.explainer(tmp_path / "e.onnx")), threads=1)
    found = explain(parts[0].read())
    assert pa.array(found["path"], pa.string()).to_pylist() == [f"{tmp_path}/x.tar#\\udcff.png"]
    assert "\\udcff.png cannot be read" in pa.array(found["error"], pa.string())[0].as_py()
