"""What an ONNX file may ask for, how its names are taken, and how it is refused."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

import relcompile
from passes.errors import UnsupportedOperatorError
from relcompile.cli.input_specs import default_specs, example_inputs
from relcompile.errors import InputSpecError, ModelFileError
from relcompile.frontend.onnx.model import OnnxModel
from relcompile.frontend.onnx.original import check_original
from relcompile.frontend.onnx.reading import read_onnx
from tests.frontend.onnx.files import Array, node, written


def weights(*shape: int) -> Array:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def perceptron(path: Path, **names: str) -> Path:
    """relu(x W) |V|, of four numbers: all that is active has positive contributions."""
    hidden = node("MatMul", "x", "w", out="h", name=names.get("first", "first"))
    active = node("Relu", "h", out="a", name=names.get("second", "second"))
    out = node("MatMul", "a", "v", name=names.get("third", "third"))
    return written(path, [hidden, active, out], {"x": ["n", 4]}, {"w": weights(4, 6), "v": np.abs(weights(6, 3))})


def test_a_file_is_read_by_its_content_and_compiles(tmp_path: Path) -> None:
    model = relcompile.read_model(perceptron(tmp_path / "net.pt"))
    assert isinstance(model, OnnxModel)
    x = torch.randn(3, 4)
    explainer = relcompile.compile(model, x, rule="z+")
    output, relevance = explainer(x, 1)
    w, v = torch.from_numpy(weights(4, 6)), torch.from_numpy(weights(6, 3)).abs()
    torch.testing.assert_close(output, (x @ w).relu() @ v)
    torch.testing.assert_close(relevance.sum(1), output[:, 1])
    assert [layer.name for layer in explainer.metadata.layers[:3]] == ["first", "second", "third"]


def test_an_explainer_is_not_a_model(tmp_path: Path) -> None:
    model = read_onnx(perceptron(tmp_path / "net.onnx"))
    relcompile.compile(model, torch.randn(2, 4)).save(tmp_path / "net.z+.onnx")
    with pytest.raises(ModelFileError, match="an explainer that relcompile wrote; `relcompile inspect`"):
        relcompile.read_model(tmp_path / "net.z+.onnx")


NAMES = {
    "dots and slashes": ("/layer1/layer1.0/conv", "/layer1/layer1.0/conv"),
    "a keyword": ("class", "class"),
    "a program": ("__import__('os').system('true')", "__import__('os').system('true')"),
    "a method": ("forward", "forward"),
    "a tensor of torch": ("operand0", "operand0"),
    "what patterns read": ("a=b,[c]*? d", "a_b__c____d"),
    "escapes": ("a\x1b[2J\nb", r"a\x1b_2J\nb"),
    "long": ("a" * 1000, "a" * 200),
    "none": ("", "MatMul_0"),
}


@pytest.mark.parametrize("name", NAMES)
def test_layers_have_the_names_of_nodes(name: str, tmp_path: Path) -> None:
    given, shown = NAMES[name]
    model = read_onnx(perceptron(tmp_path / "x.onnx", first=given))
    assert next(key for key, _ in model.named_children()) == shown
    explainer = relcompile.compile(model, torch.randn(2, 4), layers=(f"{shown[:199]}*=flat",))
    assert explainer.metadata.layers[0].name == shown
    assert "Flat" in explainer.metadata.layers[0].rule


def test_two_nodes_of_one_name_are_told_apart(tmp_path: Path) -> None:
    model = read_onnx(perceptron(tmp_path / "x.onnx", first="same", second="same", third="same"))
    assert [key for key, _ in model.named_children()] == ["same", "same_1", "same_2"]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("x", "x"),
        ("gpu_0/data_0", "gpu_0_data_0"),
        ("input.1", "input_1"),
        ("1", "x_1"),
        ("class", "x_class"),
        ("X", "X"),
    ],
)
def test_inputs_have_names_that_python_allows(given: str, taken: str, tmp_path: Path) -> None:
    path = written(tmp_path / "x.onnx", [node("Tanh", given)], {given: ["n", 4]})
    model = read_onnx(path)
    explainer = relcompile.compile(model, {taken: torch.randn(2, 4)}, rule="gradient")
    assert [record.name for record in explainer.metadata.inputs] == [taken]


def test_a_batch_that_the_file_fixes_is_free(tmp_path: Path) -> None:
    """Reshapes to (1, ...) are of one sample; what the file computes of each of several is what the module does."""
    nodes = [
        node("Reshape", "x", "shape", out="r"),
        node("Transpose", "r", out="t", perm=[0, 2, 1]),
        node("Reshape", "t", "flat"),
    ]
    constants = {"shape": np.array([1, 3, -1]), "flat": np.array([1, 12])}
    model = read_onnx(written(tmp_path / "x.onnx", nodes, {"x": [1, 12]}, constants))
    assert model.graph.batch == 1
    x = torch.randn(5, 12)
    torch.testing.assert_close(model(x)["y"], x.reshape(5, 3, 4).transpose(1, 2).flatten(1))
    assert check_original(model, {"x": x}) == {"y": 0.0}


def test_samples_that_have_a_say_in_each_other_are_refused(tmp_path: Path) -> None:
    nodes = [node("ReduceMax", "x", "axes", out="m", keepdims=1), node("Sub", "x", "m")]
    model = read_onnx(written(tmp_path / "x.onnx", nodes, {"x": [1, 4]}, {"axes": np.array([0])}))
    with pytest.raises(ModelFileError, match=r"does not predict what ONNX Runtime predicts.*samples may have a say"):
        relcompile.compile(model, torch.randn(1, 4), rule="gradient")


def test_a_wrong_weight_is_noticed(tmp_path: Path) -> None:
    """The comparison with the file is one that can fail."""
    model = read_onnx(perceptron(tmp_path / "x.onnx"))
    dict(model.named_buffers())["third.operand1"].mul_(1.01)
    with pytest.raises(ModelFileError, match=r"y by .* of its maximum"):
        relcompile.compile(model, torch.randn(2, 4), rule="gradient")


def test_a_copy_computes_with_its_own_weights(tmp_path: Path) -> None:
    model, x = read_onnx(perceptron(tmp_path / "x.onnx")), torch.randn(2, 4)
    moved = copy.deepcopy(model)
    dict(moved.named_buffers())["third.operand1"].mul_(2)
    torch.testing.assert_close(moved(x)["y"], 2 * model(x)["y"])
    assert model.double()(x.double())["y"].dtype == torch.float64


def test_one_error_lists_all_nodes_that_cannot_be_read(tmp_path: Path) -> None:
    nodes = [
        node("Relu", "x", out="a", name="fine"),
        node("NonZero", "a", out="b", name="where is it"),
        node("MaxPool", "a", out=["c", "i"], name="with indices", kernel_shape=[2]),
        node("Run", "c", out="d", name="own", domain="evil\x1b"),
        node("Concat", "b", "i", "d", name="all", axis=0),
    ]
    path = written(tmp_path / "x.onnx", nodes, {"x": ["n", 2, 4]})
    with pytest.raises(UnsupportedOperatorError) as caught:
        read_onnx(path)
    assert str(caught.value).splitlines()[1:] == [
        "  where_is_it (NonZero): not supported",
        "  with_indices (MaxPool): its results i are asked for",
        r"  own (evil\x1b::Run): not supported",
    ]
    assert str(caught.value).splitlines()[0].endswith("3 of its 5 nodes cannot be read:")


def branching(path: Path, condition: Any) -> Path:
    """x² if the condition holds, else -x."""
    value = [onnx.ValueInfoProto(name="p")]
    branches = [
        helper.make_graph([made], "branch", [], [onnx.ValueInfoProto(name=made.output[0])])
        for made in (node("Mul", "x", "x", out="p", name="squared"), node("Neg", "x", out="q", name="negated"))
    ]
    assert value
    nodes = [*condition, node("If", "c", then_branch=branches[0], else_branch=branches[1])]
    return written(path, nodes, {"x": ["n", "m"]}, {"two": np.array(2), "axis": np.array(1)})


def test_a_branch_that_shapes_choose_is_taken(tmp_path: Path) -> None:
    by_shape = [
        node("Shape", "x", out="s"), node("Gather", "s", "axis", out="m"), node("Equal", "m", "two", out="c"),
    ]  # fmt: skip
    model = read_onnx(branching(tmp_path / "x.onnx", by_shape))
    for width, layer in ((2, "squared"), (3, "negated")):
        x = torch.randn(2, width)
        explainer = relcompile.compile(model, x, rule="gradient")
        torch.testing.assert_close(explainer(x, 0)[0], x * x if width == 2 else -x)
        assert explainer.metadata.layers[0].name == layer
    by_value = [node("ReduceSum", "x", out="t", keepdims=0), node("Cast", "t", out="c", to=TensorProto.BOOL)]
    with pytest.raises(ModelFileError, match=r"If_2 \(If\): what it computes depends on the values of the input"):
        relcompile.compile(read_onnx(branching(tmp_path / "x.onnx", by_value)), torch.randn(2, 2), rule="gradient")


def with_external(folder: Path, location: str) -> Path:
    path = perceptron(folder / "x.onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    (folder / "w.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    onnx.save(model, path)
    return path


def test_weights_beside_the_file_are_read_and_no_others(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    x = {"x": torch.randn(2, 4)}
    assert check_original(read_onnx(with_external(tmp_path / "a", "w.bin")), x)["y"] < 1e-6
    os.symlink(tmp_path / "outside", tmp_path / "a" / "link")
    (tmp_path / "outside").write_bytes(b"0" * 1000)
    for location in ("../outside", str(tmp_path / "outside"), "link"):
        with pytest.raises(ModelFileError, match="outside its folder"):
            read_onnx(with_external(tmp_path / "a", location))
    with pytest.raises(ModelFileError, match="cannot be read"):
        read_onnx(with_external(tmp_path / "a", "missing.bin"))


def huge(path: Path) -> Path:
    return written(
        path,
        [node("ConstantOfShape", "s", out="h"), node("Add", "x", "h")],
        {"x": ["n", 4]},
        {"s": np.array([2**20, 2**20])},
    )


def no_input(path: Path) -> Path:
    return written(path, [node("Relu", "w")], {}, {"w": weights(2, 2)})


def text(path: Path) -> Path:
    made = written(path, [node("Identity", "x")], {"x": ["n"]})
    model = onnx.load(made)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    onnx.save(model, made)
    return made


def wrong_attribute(path: Path) -> Path:
    return written(path, [node("Gather", "x", "k", axis="first")], {"x": ["n", 4]}, {"k": np.array([0])})


def deep(path: Path) -> Path:
    results = [onnx.ValueInfoProto(name="y")]
    graph = helper.make_graph([node("Relu", "x")], "inner", [], results)
    for _ in range(9):
        graph = helper.make_graph([node("If", "c", then_branch=graph, else_branch=graph)], "outer", [], results)
        del graph.node[0].attribute[1:]
    onnx.save(helper.make_model(graph), path)
    return path


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "terabytes of zeros": (huge, "makes 1,099,511,627,776 numbers of few"),
    "no input": (no_input, "has no input"),
    "texts": (text, "holds no numbers of a kind that torch has"),
    "an attribute of another type": (wrong_attribute, r"Gather_0 \(Gather\): its attribute axis is a str"),
    "graphs in graphs": (deep, "graphs hold graphs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_file_is_refused_in_one_message(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    with pytest.raises((ModelFileError, InputSpecError), match=message):
        check_original(read_onnx(make(tmp_path / "x.onnx")), {"x": torch.randn(2, 4)})


@pytest.mark.parametrize("cut", [10, 60, 150, -1])
def test_a_damaged_file_is_refused(cut: int, tmp_path: Path) -> None:
    path = perceptron(tmp_path / "x.onnx")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises((ModelFileError, UnsupportedOperatorError)):
        relcompile.read_model(path)


def test_the_inputs_that_the_file_declares_are_assumed(tmp_path: Path) -> None:
    model = read_onnx(perceptron(tmp_path / "x.onnx"))
    assert default_specs(model) == ("x=1x4:float32",)
    open_ = read_onnx(written(tmp_path / "y.onnx", [node("Relu", "a.b")], {"a.b": [1, 3, "h", "w"]}))
    with pytest.raises(InputSpecError, match=r"leaves sizes of its inputs open: give --input a_b=1x3x\?x\?:float32"):
        default_specs(open_)
    with pytest.raises(InputSpecError, match=r"first \(MatMul\) cannot be computed on 2x5"):
        check_original(model, example_inputs(model, ("1x5",)))


def test_the_command_line_compiles_it_in_a_child(tmp_path: Path) -> None:
    """As any model file: in a process that may write nothing but the result."""
    perceptron(tmp_path / "net.onnx")
    command = [sys.executable, "-m", "relcompile", "net.onnx", "--rule", "z+"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "input: x=1x4:float32 (assumed" in done.stderr
    assert "compare with ONNX Runtime" in done.stderr
    production = relcompile.load(tmp_path / "net.z+.onnx", device="cpu")
    x = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    found = production.explain(x, target=[0, 1])
    np.testing.assert_allclose(found.relevance.sum(1), found.output[[0, 1], [0, 1]], rtol=1e-4)
