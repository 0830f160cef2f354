"""An explainer that asks for more than ours do is refused before a session is made of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from relcompile.errors import ExplainerFileError
from relcompile.files import onnx_bounds
from relcompile.files.onnx_bounds import check_bounds
from relcompile.runtime import opening, production

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
BODY = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "body", [], [Y])


def external(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="location", value=location)
    return tensor


def model(*nodes: onnx.NodeProto, tensors: tuple[TensorProto, ...] = ()) -> onnx.ModelProto:
    return helper.make_model(helper.make_graph(list(nodes), "g", [X], [Y], list(tensors)))


def node(operator: str = "Identity", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["x"], ["y"], **attributes)


def with_function() -> onnx.ModelProto:
    made = model(node())
    made.functions.append(helper.make_function("own", "F", ["x"], ["y"], [node()], [helper.make_opsetid("", 20)]))
    return made


def sparse(values: TensorProto) -> onnx.ModelProto:
    made = model(node())
    made.graph.sparse_initializer.add(values=values, indices=numpy_helper.from_array(np.zeros(1, np.int64)), dims=[1])
    return made


REFUSED: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "If": (lambda: model(node("If", then_branch=BODY, else_branch=BODY)), "If holds a graph of its own"),
    "Loop": (lambda: model(node("Loop", body=BODY)), "Loop holds a graph"),
    "Scan": (lambda: model(node("Scan", body=BODY, num_scan_inputs=1)), "Scan holds a graph"),
    "graphs": (lambda: model(node("Identity", bodies=[BODY])), "Identity holds a graph"),
    "a domain of ONNX Runtime": (lambda: model(node("Gelu", domain="com.microsoft")), "com.microsoft::Gelu"),
    "a domain of its own": (lambda: model(node("Run", domain="evil\x1b[2J")), "is not standard"),
    "not the first": (lambda: model(node(), node("Loop", body=BODY)), "Loop holds a graph"),
    "a function": (with_function, "defines functions"),
    "weights above": (lambda: model(node(), tensors=(external("../w"),)), "outside its folder"),
    "weights at a path": (lambda: model(node(), tensors=(external("/etc/passwd"),)), "outside its folder"),
    "weights behind a link": (lambda: model(node(), tensors=(external("link"),)), "outside its folder"),
    "weights in a constant": (lambda: model(node("Constant", value=external("../w"))), "outside its folder"),
    "weights in a list": (lambda: model(node("Constant", values=[external("../w")])), "outside its folder"),
    "sparse weights": (lambda: sparse(external("../w")), "outside its folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_a_session_is_made(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a session was made")

    monkeypatch.setattr(opening, "open_session", never)
    make, message = REFUSED[case]
    (tmp_path / "secret").write_bytes(bytes(4))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "e.onnx").write_bytes(make().SerializeToString())
    with pytest.raises(ExplainerFileError, match="not an explainer that relcompile wrote") as caught:
        production.load(folder / "e.onnx", device="cpu")
    assert message in str(caught.value)
    assert str(folder / "e.onnx") in str(caught.value)


@pytest.mark.parametrize("location", ["w", "./w", "sub/w", "sub/../w"])
def test_weights_in_the_own_folder(location: str, tmp_path: Path) -> None:
    (tmp_path / "e.onnx").write_bytes(model(node(), tensors=(external(location),)).SerializeToString())
    check_bounds(tmp_path / "e.onnx")


def test_a_file_in_the_present_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("e.onnx").write_bytes(model(node("Clip"), tensors=(external("w"),)).SerializeToString())
    check_bounds(Path("e.onnx"))


def test_a_graph_that_is_there_twice_is_read_twice(tmp_path: Path) -> None:
    first, second = model(node()), onnx.ModelProto(graph=helper.make_graph([node("Loop", body=BODY)], "g", [], []))
    (tmp_path / "e.onnx").write_bytes(first.SerializeToString() + second.SerializeToString())
    assert [part.op_type for part in onnx.load(tmp_path / "e.onnx").graph.node] == ["Identity", "Loop"]
    with pytest.raises(ExplainerFileError, match="Loop"):
        check_bounds(tmp_path / "e.onnx")


GRAPH = model(node("Loop", body=BODY), tensors=(external("w"),)).SerializeToString()


@given(st.binary(max_size=60) | st.builds(lambda cut, tail: GRAPH[:cut] + tail, st.integers(0, 120), st.binary()))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with suppress(ExplainerFileError):
        check_bounds(path)


def test_a_file_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_bounds, "LARGEST_EXPLAINER", 10)
    (tmp_path / "e.onnx").write_bytes(bytes(11))
    with pytest.raises(ExplainerFileError, match="11 bytes, more than the 10"):
        check_bounds(tmp_path / "e.onnx")
