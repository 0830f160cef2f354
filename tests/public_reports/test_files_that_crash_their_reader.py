"""Files that kept the reader busy for hours or crashed it, and were told that relcompile had failed."""

import io
import pickle
import pickletools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import relcompile
from passes.errors import InvariantError, MiscompilationError, UnsupportedOperatorError
from relcompile.cli import main
from relcompile.cli.commands import compile as compile_command
from relcompile.errors import CaptureError, CompositeError, ModelFileError, RelcompileError
from relcompile.frontend.reading import checkpoint
from relcompile.frontend.reading.model_file import read_model
from relcompile.frontend.reading.safe_pickle import load_checkpoint
from relcompile.methods import spelling
from tests.frontend.pickles import CALL_0, LINEAR, NEW, named, text, write_checkpoint
from tests.frontend.zoo import same


def number(value: int) -> bytes:
    digits = pickle.encode_long(value)
    return b"\x8a" + bytes([len(digits)]) + digits


EQUAL_HASHES = [number(k * sys.hash_info.modulus) for k in range(1, 200)]
DEEP_TUPLE = b")" + b"\x85" * 300_000
BODIES: dict[str, tuple[bytes, str]] = {
    "keys of one hash": (b"}(" + b"N".join(EQUAL_HASHES) + b"Nu", "numbers of usual size"),
    "one such key": (b"}" + EQUAL_HASHES[0] + b"Ns", "numbers of usual size"),
    "ordered keys of one hash": (
        named("collections", "OrderedDict") + b"](" + b"".join(n + b"N\x86" for n in EQUAL_HASHES) + b"e\x85R",
        "numbers of usual size",
    ),
    "a set of one hash": (
        named("__builtin__", "set") + b"](" + b"".join(EQUAL_HASHES) + b"e\x85R",
        "numbers of usual size",
    ),
    "a deep tuple as a key": (b"}" + DEEP_TUPLE + b"Ns", "neither strings nor numbers"),
}


def write_legacy(path: Path, body: bytes) -> None:
    """The file of before PyTorch 1.6, with another pickle in place of its own."""
    torch.save({}, path, _use_new_zipfile_serialization=False)
    start = io.BytesIO(path.read_bytes())
    for _ in range(3):
        list(pickletools.genops(start))
    path.write_bytes(start.getvalue()[: start.tell()] + b"\x80\x02" + body + b"." + pickle.dumps([], 2))


@pytest.mark.parametrize("write", [write_checkpoint, write_legacy])
@pytest.mark.parametrize("name", BODIES)
def test_a_small_pickle_does_not_exhaust_the_reader(
    name: str, write: Callable[[Path, bytes], None], tmp_path: Path
) -> None:
    body, message = BODIES[name]
    write(tmp_path / "model", body)
    with pytest.raises(ModelFileError, match=message):
        read_model(tmp_path / "model")


def test_a_pickle_has_so_many_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "MOST_OPCODES", 1000)
    write_checkpoint(tmp_path / "model", b"(" + b"]" * 1000 + b"t")
    with pytest.raises(ModelFileError, match="more than 1000 opcodes"):
        read_model(tmp_path / "model")


def test_parts_that_are_shared_many_times_are_visited_once(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    for _ in range(40):
        model = nn.Sequential(nn.Sequential(model), nn.Sequential(model))
    torch.save(model, tmp_path / "model")
    assert not any(module.training for module in read_model(tmp_path / "model").modules())


UNCHECKED = named(LINEAR, "Linear") + NEW + b"}" + text("forward") + text("x") + b"sb"


def test_what_nothing_refers_to_is_checked_too(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", UNCHECKED + b"}" + text("weight") + b"K\x01s")
    with pytest.raises(ModelFileError, match="Linear without children, parameters or buffers"):
        read_model(tmp_path / "model")


def test_the_versions_in_a_state_dict_stay_plain(tmp_path: Path) -> None:
    entry, versions = b"}q\x01", b"}" + text("_metadata") + b"}" + text("")
    later = b"h\x01" + text("version") + b"]s"  # the entry is changed after it was looked at
    write_checkpoint(
        tmp_path / "model", named("collections", "OrderedDict") + CALL_0 + versions + entry + b"ssb" + later + b"\x86"
    )
    weights: Any = load_checkpoint(tmp_path / "model", [])
    assert weights[1] == {"version": []}
    assert weights[0]._metadata == {"": {}}


def change(path: Path, place: int, value: int) -> None:
    """Another byte in the first entry of the zip's directory."""
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + place] = value
    path.write_bytes(content)


def write_name_without_unicode(path: Path) -> None:
    write_checkpoint(path, b"}")
    change(path, 9, 8)  # says that the name is UTF-8
    change(path, 46, 0xFF)


def write_version_from_the_future(path: Path) -> None:
    write_checkpoint(path, b"}")
    change(path, 6, 200)


def write_parallel(path: Path, inner: object) -> None:
    parallel = nn.DataParallel(nn.Identity())
    del parallel._modules["module"]
    vars(parallel)["module"] = inner
    torch.save(parallel, path)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "a name that is not Unicode": (write_name_without_unicode, "damaged or cut off"),
    "a version from the future": (write_version_from_the_future, "damaged or cut off"),
    "parallel of nothing": (lambda path: write_parallel(path, None), "DataParallel with no module"),
    "parallel of a number": (lambda path: write_parallel(path, 5), "DataParallel with no module"),
}


def hidden(name: str, value: object) -> Callable[[Path], None]:
    """Something else than its method, or its parts, under a name that a module has."""

    def write(path: Path) -> None:
        model = nn.Sequential(nn.Linear(2, 2))
        vars(model[0])[name] = value
        torch.save(model, path)

    return write


def write_deep(path: Path) -> None:
    """300 modules in each other; torch.save itself needs a recursion of many times that."""
    model: nn.Module = nn.Linear(2, 2)
    for _ in range(300):
        model = nn.Sequential(model)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(10_000)
    try:
        torch.save(model, path)
    finally:
        sys.setrecursionlimit(limit)


def write_sparse(path: Path) -> None:
    torch.save({"weight": torch.eye(2).to_sparse()}, path)


METHODS = ("forward", "eval", "train", "modules", "state_dict")
SHADOWED: dict[str, tuple[Callable[[Path], object], str]] = {
    **{name: (hidden(name, nn.functional.relu), f"'{name}' in place of a method") for name in METHODS},
    "_parameters": (hidden("_parameters", []), "not in plain dictionaries"),
    "_buffers": (hidden("_buffers", 3), "not in plain dictionaries"),
    "deep": (write_deep, "more than 200 in each other"),
    "sparse": (write_sparse, "_rebuild_sparse_tensor"),
}


REFUSED = {**ODD, **SHADOWED}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_model_is_refused(name: str, tmp_path: Path) -> None:
    write, message = REFUSED[name]
    write(tmp_path / "model")
    with pytest.raises(ModelFileError, match=message):
        read_model(tmp_path / "model")


@pytest.mark.parametrize("versions", [3, [], {"": 3}, {"": {"version": "x"}}], ids=str)
def test_versions_that_are_none_do_no_harm(versions: object, tmp_path: Path) -> None:
    state: Any = shared().state_dict()
    state._metadata = versions
    torch.save(state, tmp_path / "model")
    assert same(read_model(tmp_path / "model", arch=f"{__name__}:shared"), filled(state))


def filled(state: dict[str, torch.Tensor]) -> nn.Module:
    model = shared().eval()
    for name, value in model.state_dict().items():
        value.copy_(state[name])
    return model


@pytest.mark.parametrize("rule", ["root=100000", "smoothgrad=1e9", "integrated-gradients=1e12"])
def test_no_rule_is_larger_than_any_machine(rule: str) -> None:
    with pytest.raises(CompositeError, match="must be a whole number"):
        spelling.named(rule)


def test_the_old_format_shares_tensors_and_keeps_dtypes(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).double()
    model[2].weight = model[0].weight
    state = {"state_dict": model.state_dict(), "epoch": 3, "empty": torch.zeros(0, dtype=torch.int8)}
    torch.save(state, tmp_path / "old", _use_new_zipfile_serialization=False)
    read = read_model(tmp_path / "old", arch=f"{__name__}:shared")
    assert same(model, read)


def shared() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2)).double()


def test_a_recurrent_layer_makes_no_list_of_layers_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lstm = nn.LSTM(2, 2)
    vars(lstm).update(_all_weights=[[1]], num_layers=10**9)
    state = {name: value for name, value in vars(lstm).items() if name != "_flat_weight_refs"}
    with monkeypatch.context() as patch:
        patch.setattr(nn.LSTM, "__getstate__", lambda _: state)
        torch.save(lstm, tmp_path / "model")
    with pytest.raises(ModelFileError, match="LSTM with more layers than parameters"):
        read_model(tmp_path / "model")


OWN = "relcompile failed, and should not have"


FAULTS: dict[type[Exception], int] = {
    InvariantError: 1,
    MiscompilationError: 1,
    KeyError: 1,
    UnsupportedOperatorError: 2,
    CaptureError: 2,
    RelcompileError: 2,
}


@pytest.mark.parametrize(("fault", "code"), FAULTS.items(), ids=lambda value: getattr(value, "__name__", str(value)))
def test_exit_codes(
    fault: type[Exception],
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise fault("what went wrong")

    monkeypatch.setattr(compile_command, "compile_file", fails)
    monkeypatch.setattr(sys, "argv", ["relcompile", str(tmp_path / "model.pt")])
    with pytest.raises(SystemExit) as stop:
        main.main()
    told = capsys.readouterr().err
    assert stop.value.code == code
    assert "what went wrong" in told
    assert (OWN in told) == (code == 1)
    assert ("please report" in told) == (code == 1)


def test_own_faults_have_one_root() -> None:
    assert issubclass(InvariantError, relcompile.InternalError)
    assert issubclass(MiscompilationError, relcompile.InternalError)
    assert not issubclass(UnsupportedOperatorError, relcompile.InternalError)
