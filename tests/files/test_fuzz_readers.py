"""The other readers of files that the user names, on files that are damaged inside their container."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet
from tokenizers import Tokenizer as Library
from tokenizers import models

from relcompile.cli.plugins import entries
from relcompile.errors import RelcompileError
from relcompile.evaluation.report import page
from relcompile.evaluation.results import Picture, Results, Row, Shown
from relcompile.files.records import LayerRecord
from relcompile.frontend.onnx.reading import read_onnx
from relcompile.frontend.reading.model_file import read_model
from relcompile.metadata import Metadata
from relcompile.pictures.tokens import Tokenizer
from tests.files.test_fuzz import TRIES, VALUES, flipped, memory, read_or_refuse, replaced
from tests.frontend.onnx.files import node, written
from tests.test_metadata import FULL

__all__ = ["memory"]


def rezipped(content: bytes, change: dict[str, bytes]) -> bytes:
    """The archive with other members, whose checksums are right."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            new.writestr(name, change.get(name.rpartition("/")[2], old.read(name)))
    return made.getvalue()


SAVED = io.BytesIO()
torch.save(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.ReLU()), SAVED)
OPCODES = b"().012NRabcehijlopqrstu}]\x85\x86\x87\x88\x89"


@TRIES
@given(data=st.data())
def test_checkpoints(data: st.DataObject, tmp_path: Path) -> None:
    with zipfile.ZipFile(SAVED) as archive:
        raw = bytearray(next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl")))
    for place in data.draw(st.lists(st.integers(0, len(raw) - 1), max_size=3)):
        raw[place] = data.draw(st.sampled_from(OPCODES))
    content = data.draw(st.sampled_from([bytes(raw), flipped(data, bytes(raw)), pickle.dumps(data.draw(VALUES))]))
    (tmp_path / "m.pt").write_bytes(rezipped(SAVED.getvalue(), {"data.pkl": content}))
    read_or_refuse(lambda: read_model(tmp_path / "m.pt"))


@TRIES
@given(data=st.data())
def test_onnx_models(data: st.DataObject, tmp_path: Path) -> None:
    nodes = [node("Conv", "x", "w", out="a", pads=[1, 1, 1, 1]), node("Relu", "a", out="b"), node("Flatten", "b")]
    path = written(tmp_path / "m.onnx", nodes, {"x": (1, 2, 4, 4)}, {"w": np.ones((3, 2, 3, 3), np.float32)})
    model = onnx.load(path)
    changed = data.draw(st.sampled_from(list(model.graph.node)))
    changed.op_type = data.draw(st.sampled_from([changed.op_type, "Reshape", "Gemm", "Loop", "", "LSTM", "Resize"]))
    changed.input[0] = data.draw(st.sampled_from([changed.input[0], "y", "b", "", "w", "\x1b[2J"]))
    weight = model.graph.initializer[0]
    weight.dims[0] = data.draw(st.sampled_from([3, 0, -1, 2**40, 2**62]))
    weight.data_type = data.draw(st.sampled_from([1, 0, 8, 10, 16, 99]))
    sizes = model.graph.input[0].type.tensor_type.shape.dim
    sizes[data.draw(st.integers(0, 3))].dim_value = data.draw(st.sampled_from([1, 0, -4, 2**62]))
    content = model.SerializeToString()
    path.write_bytes(data.draw(st.sampled_from([content, flipped(data, content)])))
    read_or_refuse(lambda: read_onnx(path))


LAYER = LayerRecord("fc", operator="linear", kind="affine", rule="ZPlus()", parameters=12)
ROWS = [Row("z+", metric, 0, 0.5, "fc", 0.5) for metric in ("csc", "srg", "lerf", "conservation", "random-logit")]
EVALUATION = Results(
    {"rules": ["z+"], "shape": [1, 3, 8, 8]},
    ROWS,
    [("z+", "csc")],
    {"z+ roots": "it learns none"},
    {"z+": Shown((LAYER,), (Picture(0, target=3, limit=0.25, image=b"png", map=b"png"),))},
)


@TRIES
@given(data=st.data())
def test_evaluations(data: st.DataObject, tmp_path: Path) -> None:
    EVALUATION.save(tmp_path / "e.parquet")
    table = parquet.read_table(tmp_path / "e.parquet")
    (key, text), *_ = table.schema.metadata.items()
    about = json.dumps(replaced(data, json.loads(text)))
    columns = {
        name: data.draw(st.sampled_from([table[name], pa.array([None] * len(ROWS)), pa.array(["x"] * len(ROWS))]))
        for name in table.schema.names[: data.draw(st.integers(0, 9))]
    }
    made = data.draw(st.sampled_from([table, pa.table(columns)]))
    parquet.write_table(made.replace_schema_metadata({key: about}), tmp_path / "e.parquet")
    content = (tmp_path / "e.parquet").read_bytes()
    (tmp_path / "e.parquet").write_bytes(data.draw(st.sampled_from([content, flipped(data, content)])))
    read_or_refuse(lambda: page(Results.load(tmp_path / "e.parquet")))


@TRIES
@given(data=st.data())
def test_tokenizers(data: st.DataObject, tmp_path: Path) -> None:
    text = Library(models.WordLevel({"good": 0, "film": 1, "[UNK]": 2}, unk_token="[UNK]")).to_str()
    (tmp_path / "t.json").write_text(json.dumps(replaced(data, json.loads(text))), "utf-8")
    read_or_refuse(lambda: Tokenizer(Metadata.from_json(FULL.to_json()), tmp_path / "t.json"))


@TRIES
@given(
    spec=st.text(alphabet="ab.:/\\\x00 \ud800é", max_size=12) | st.sampled_from(["os:path", "sys:exit", ":", "a:b:c"])
)
def test_plugins(spec: str) -> None:
    known = set(sys.modules)
    read_or_refuse(lambda: entries([spec]))
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_code_that_ends_the_process_ends_in_a_message(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "w.pt")
    with pytest.raises(RelcompileError, match="sys:exit: SystemExit"):
        read_model(tmp_path / "w.pt", arch="sys:exit")
    with pytest.raises(RelcompileError, match="sys:exit: SystemExit"):
        entries(["sys:exit"])
