"""The standard's own test cases: what they say of an operator is what the module computes, or the file is refused."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TypeProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

from passes.errors import UnsupportedOperatorError
from relcompile.errors import RelcompileError
from relcompile.frontend.onnx.original import difference
from relcompile.frontend.onnx.reading import read_onnx
from relcompile.frontend.onnx.sizes import SHAPES
from relcompile.frontend.onnx.table import OPERATORS

STORED = Path(onnx.__file__).parent / "backend" / "test" / "data"
AGREES = 1e-3  # of the largest value: references are float16 here and there


def stored_cases() -> list[Path]:
    """Files that PyTorch wrote, with inputs and outputs beside them."""
    return sorted(
        path.parent
        for kind in ("pytorch-converted", "pytorch-operator")
        for path in (STORED / kind).glob("*/model.onnx")
    )


def tensors(folder: Path, kind: str) -> list[np.ndarray]:
    """What lies in `input_0.pb`, ..."""
    paths = sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb"))
    return [numpy_helper.to_array(onnx.load_tensor(str(path))) for path in paths]


def outcome(path: Path, inputs: list[Any], outputs: list[Any]) -> str:
    """Agrees, differs, or why it is refused."""
    try:
        model = read_onnx(path)
        with torch.no_grad():
            found = list(model(*(torch.from_numpy(np.array(x)) for x in inputs)).values())
    except (RelcompileError, UnsupportedOperatorError) as error:
        return f"refused: {str(error).splitlines()[-1]}"
    worst = max(difference(a.numpy(), np.asarray(b)) for a, b in zip(found, outputs, strict=True))
    return "agrees" if worst < AGREES else f"differs by {worst:.1e}"


def test_files_of_the_standard() -> None:
    found = {
        folder.name: outcome(folder / "model.onnx", tensors(folder, "input"), tensors(folder, "output"))
        for folder in stored_cases()
    }
    assert len(found) > 100
    other = {name: result for name, result in found.items() if result != "agrees"}
    assert not other


def cases_of_nodes() -> Iterator[tuple[str, onnx.ModelProto, list[Any], list[Any]]]:
    """Each case of an operator of the table; operands that have to be known are constants of the file."""
    for case in load_model_tests(kind="node"):
        model: Any = copy.deepcopy(case.model)
        data: Any = case.data_sets
        nodes = model.graph.node
        if any(n.domain or n.op_type not in {*OPERATORS, *SHAPES} for n in nodes):
            continue
        known = {
            x
            for n in nodes
            if n.op_type in OPERATORS
            for k, x in enumerate(n.input)
            if k in OPERATORS[n.op_type].numbers
        }
        inputs, outputs = ([_array(value) for value in values] for values in data[0])
        declared = list(model.graph.input)
        if not all(is_tensor(value.type) for value in (*declared, *model.graph.output)):
            continue
        kept = [k for k, value in enumerate(declared) if value.name not in known] or [*range(len(declared))]
        for k in {*range(len(declared))} - {*kept}:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(inputs[k]), declared[k].name))
        del model.graph.input[:]
        model.graph.input.extend(declared[k] for k in kept)
        yield case.name, model, [inputs[k] for k in kept], outputs


def _array(value: Any) -> Any:
    """Some cases hold their numbers as they are stored."""
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def is_tensor(kind: TypeProto) -> bool:
    """Of numbers that numpy and torch have."""
    return kind.tensor_type.elem_type in {1, 2, 3, 5, 6, 7, 9, 10, 11}


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore")
def test_cases_of_the_standard(tmp_path: Path) -> None:
    """Of 1,211 cases more than 1,060 agree, and none differs; the others are refused, each by the name of its node."""
    results = dict[str, str]()
    for name, model, inputs, outputs in cases_of_nodes():
        onnx.save(model, tmp_path / "x.onnx")
        results[name] = outcome(tmp_path / "x.onnx", inputs, outputs)
    wrong = {name: r for name, r in results.items() if r.startswith("differs")}
    assert not wrong
    counts = Counter(result.partition(":")[0] for result in results.values())
    assert counts["agrees"] >= 1060
    unnamed = [
        r for r in results.values() if r.startswith("refused") and not re.search(r"\(\w+\)|input or output|no input", r)
    ]
    assert not unnamed
