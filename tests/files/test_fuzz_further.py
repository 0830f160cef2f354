"""Readers of whole files in other formats, damaged inside their containers, whose checksums are right."""

from __future__ import annotations

import functools
import io
import json
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from PIL import Image

from relcompile.bulk.explain_batch import ExplainBatch
from relcompile.bulk.parts import fingerprint, parts_of
from relcompile.calibration import store
from relcompile.calibration.state import StateFile
from relcompile.cli.commands.compile import _class_names
from relcompile.cli.commands.inspect import python_in
from relcompile.concepts.maximisation import CONCEPTS, STATE, Concepts, Maxima
from relcompile.files.seal import SEAL_KEY, UNSEALED, seal
from relcompile.frontend.reading.model_file import read_model
from relcompile.metadata import METADATA_KEY, SOURCE_KEY, Metadata
from relcompile.runtime.production import load
from relcompile.serving.model import Model
from tests.bulk import photographs
from tests.files.test_fuzz import TRIES, flipped, memory, read_or_refuse, replaced
from tests.files.test_fuzz_readers import rezipped
from tests.test_metadata import FULL

__all__ = ["memory"]

FEWER = settings(TRIES, max_examples=max(1, TRIES.max_examples // 4))  # of readers that take a tenth of a second


@functools.cache
def exported() -> bytes:
    """A program of torch.export, with the source that an explainer's file bears."""
    file = io.BytesIO()
    program = torch.export.export(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), (torch.ones(1, 3),))
    torch.export.save(program, file, extra_files={SOURCE_KEY: "import torch\n"})
    return file.getvalue()


@FEWER
@given(data=st.data())
def test_exported_programs(data: st.DataObject, tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(exported())) as archive:
        members = {name.rpartition("/")[2]: archive.read(name) for name in archive.namelist()}
    name = data.draw(st.sampled_from(sorted(members)))
    content = members[name]
    if name.endswith(".json"):
        content = json.dumps(replaced(data, json.loads(content))).encode()
    changed = rezipped(exported(), {name: data.draw(st.sampled_from([content, flipped(data, content)]))})
    path = tmp_path / "m.pt2"
    path.write_bytes(data.draw(st.sampled_from([changed, flipped(data, changed)])))
    read_or_refuse(lambda: read_model(path, trust=True))
    read_or_refuse(lambda: read_model(path))
    read_or_refuse(lambda: python_in(path))


def picture(number: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photographs.pixels(number)).save(file, "PNG")
    return file.getvalue()


@functools.cache
def batch_of(folder: Path) -> ExplainBatch:
    """What explains photographs of 4 x 4 pixels."""
    return ExplainBatch(str(photographs.explainer(folder / "photographs.onnx")), threads=1)


def batched(given: Path, folder: Path) -> None:
    """What `relcompile batch` does with its input; what is said of it can be written."""
    parts = parts_of(given, 2)
    fingerprint(parts)
    for part in parts:
        found = batch_of(folder)(part.read())
        pa.table({name: pa.array(found[name], pa.string()) for name in ("path", "error")})


CELLS = st.sampled_from([picture(), picture()[:50], b"", None])
COLUMNS: list[tuple[pa.DataType, Any]] = [
    (pa.binary(), CELLS),
    (pa.large_binary(), CELLS),
    (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), CELLS.map(lambda raw: {"bytes": raw, "path": "x"})),
    (pa.struct([("bytes", pa.binary())]), st.none()),
    (pa.string(), st.none() | st.sampled_from(["", "a.png", "../a", "\x1b[2J"])),
    (pa.int64(), st.integers(-1, 3)),
    (pa.list_(pa.binary()), st.none()),
    (pa.dictionary(pa.int8(), pa.string()), st.sampled_from(["a", "b"])),
]


@TRIES
@given(data=st.data())
def test_parquet_files_of_photographs(data: st.DataObject, tmp_path: Path, tmp_path_factory: Any) -> None:
    count = data.draw(st.integers(0, 4))
    columns = {}
    for name in data.draw(st.lists(st.sampled_from(["image", "path", "bytes", "", "x"]), min_size=1, unique=True)):
        kind, values = data.draw(st.sampled_from(COLUMNS))
        columns[name] = pa.array(data.draw(st.lists(values, min_size=count, max_size=count)), kind)
    made = io.BytesIO()
    pq.write_table(pa.table(columns), made, row_group_size=2, compression=data.draw(st.sampled_from(["none", "zstd"])))
    content = made.getvalue()
    (tmp_path / "x.parquet").write_bytes(data.draw(st.sampled_from([content, flipped(data, content)])))
    read_or_refuse(lambda: batched(tmp_path / "x.parquet", tmp_path_factory.getbasetemp()))


HEADERS = ["size", "path", "mtime", "GNU.sparse.size", "GNU.sparse.major", "GNU.sparse.map", "charset", "hdrcharset"]


@TRIES
@given(data=st.data())
def test_tar_files_of_photographs(data: st.DataObject, tmp_path: Path, tmp_path_factory: Any) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=data.draw(st.sampled_from([0, 1, 2]))) as archive:
        for number in range(data.draw(st.integers(0, 3))):
            info = tarfile.TarInfo(data.draw(st.sampled_from(["0.png", "\udcff.png", "a/" * 40 + "1.jpg", "x.txt"])))
            info.type = data.draw(st.sampled_from([tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.GNUTYPE_SPARSE]))
            info.pax_headers = data.draw(
                st.dictionaries(
                    st.sampled_from(HEADERS), st.sampled_from(["-7", "9" * 30, "1,2", "x", "0"]), max_size=2
                )
            )
            content = picture(number)
            info.size = len(content) if info.isreg() else 0
            archive.addfile(info, io.BytesIO(content))
    content = bytearray(made.getvalue())
    if data.draw(st.booleans()):  # another size of the first member, with the checksum of such a header
        content[124:136] = data.draw(
            st.sampled_from([b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"x" * 12])
        )
        content[148:156] = b"%06o\0 " % (256 + sum(content[:148]) + sum(content[156:512]))
    (tmp_path / "x.tar").write_bytes(data.draw(st.sampled_from([bytes(content), flipped(data, bytes(content))])))
    read_or_refuse(lambda: batched(tmp_path / "x.tar", tmp_path_factory.getbasetemp()))


SHAPES = st.lists(st.integers(0, 3), max_size=3)


@TRIES
@given(data=st.data())
def test_concepts(data: st.DataObject, tmp_path: Path) -> None:
    kinds = {"scores": torch.float64, "samples": torch.int64, "classes": torch.int64}
    shape, kept = data.draw(SHAPES), data.draw(st.sampled_from([kinds, {**kinds, "more": torch.int8}, {}]))
    tensors = {
        name: torch.full(
            data.draw(st.sampled_from([shape, [2, 3]])),
            data.draw(st.sampled_from([-1, 0, 5, 2**40])),
            dtype=data.draw(st.sampled_from([kind, torch.float32])),
        )
        for name, kind in kept.items()
    }
    kind = data.draw(st.sampled_from([CONCEPTS, STATE]))
    facts = replaced(data, {"kind": kind.name, "format": 2, "samples": 6, "layer": "0", "count": 3, "batch": 8})
    if isinstance(facts, dict):
        facts["sha256"] = store._digest(tensors, facts)
    content = safetensors.torch.save(tensors, {"relcompile": json.dumps(facts)})
    for name in ("c.safetensors", "c.partial.safetensors"):
        (tmp_path / name).write_bytes(data.draw(st.sampled_from([content, flipped(data, content)])))
    read_or_refuse(lambda: Concepts.load(tmp_path / "c.safetensors").maxima.tensors)
    read_or_refuse(lambda: resumed(tmp_path / "c.safetensors"))


def resumed(path: Path) -> Maxima:
    """The state that a run goes on from."""
    state = StateFile(path, kind=STATE)
    tensors, samples = state.read({"layer": "0"}, 10)
    return Maxima.of_tensors(state.path, tensors, samples).with_batch(np.ones((1, 2)), samples, np.zeros(1, np.int64))


@TRIES
@given(content=st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode("utf-8", "replace")))
def test_class_names(content: bytes, tmp_path: Path) -> None:
    """What is read is kept as it is, in the file of the explainer too."""
    (tmp_path / "names.txt").write_bytes(content)

    def kept() -> None:
        names = _class_names(tmp_path / "names.txt")
        assert names is not None
        said = replace(FULL, target=replace(FULL.target, classes=len(names)), class_names=tuple(names))
        assert Metadata.from_json(said.to_json()).class_names == tuple(names)

    read_or_refuse(kept)


@TRIES
@given(data=st.data())
def test_explainers(data: st.DataObject, tmp_path: Path) -> None:
    """Loaded, run, and served; the seal is that of the damaged content."""
    path = photographs.explainer(tmp_path / "e.onnx", data.draw(st.sampled_from(["index", "argmax", "fixed", "seed"])))
    model = onnx.load(path)
    told = json.loads(model.metadata_props[0].value)
    changed = data.draw(st.sampled_from(list(model.graph.node)))
    match data.draw(st.sampled_from(["operator", "operand", "weight", "shape", "metadata", "nothing"])):
        case "operator":
            changed.op_type = data.draw(st.sampled_from(["Reshape", "Gemm", "Loop", "", "Expand", "Resize", "Tile"]))
        case "operand":
            changed.input[:1] = [data.draw(st.sampled_from(["output", "relevance", "", "W", "\x1b[2J"]))]
        case "weight":
            model.graph.initializer[0].dims[0] = data.draw(st.sampled_from([3, 0, -1, 2**40, 2**62]))
        case "shape":
            value = data.draw(st.sampled_from([*model.graph.input, *model.graph.output]))
            size = value.type.tensor_type.shape.dim[
                data.draw(st.integers(0, 1)) % len(value.type.tensor_type.shape.dim)
            ]
            size.dim_value = data.draw(st.sampled_from([1, 0, -4, 2**40, 2**62]))
        case "metadata":
            told = replaced(data, told)
    helper.set_model_props(model, {METADATA_KEY: json.dumps(told), SEAL_KEY: UNSEALED})
    content = model.SerializeToString()
    path.write_bytes(data.draw(st.sampled_from([content, content, flipped(data, content)])))
    read_or_refuse(lambda: used(path))


def used(path: Path) -> None:
    """As `explain` and `serve` do."""
    seal(path)
    explainer = load(path, device="cpu", threads=1)
    served = Model.of(explainer, 2, 2)
    for queue in served.queues:
        queue.close()
    explainer.explain(np.ones((2, 3, 4, 4), np.float32), target=1)
