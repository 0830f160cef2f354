"""Small files that would be large, slow, wrong or something else than they seem, and what is said of them."""

from __future__ import annotations

import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from relcompile.errors import ModelFileError
from relcompile.frontend.reading.model_file import read_model
from relcompile.frontend.reading.safe_pickle import load_checkpoint
from tests.frontend.pickles import NEW, named, text, write_checkpoint

HUGE = partial(nn.Linear, 20000, 20000)
SECONDS = 20  # most that a refusal may take, on a busy machine


def saved(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """A small net, with something wrong in it."""

    def write(path: Path) -> None:
        model = nn.Sequential(nn.Linear(4, 3), nn.TransformerEncoderLayer(4, 2, 8), nn.Linear(3, 2))
        change(model)
        torch.save(model, path)

    return write


def holding(place: str, value: Any) -> Callable[[Path], None]:
    return saved(lambda model: vars(model)[place].update(x=value))


def with_attribute(name: str, value: Any) -> Callable[[Path], None]:
    return saved(lambda model: vars(model[0]).update({name: value}))


def as_any(value: Any) -> Any:
    """A module has its parts by names that no type checker knows."""
    return value


def itself(model: nn.Module) -> None:
    model._modules["x"] = model


def list_in_itself(model: Any) -> None:
    model.held = []
    model.held.append(model.held)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "partial as a child": (holding("_modules", HUGE), "children that are no modules"),
    "class as a child": (holding("_modules", nn.ReLU), "children that are no modules"),
    "number as a child": (holding("_modules", 3), "children that are no modules"),
    "tensor as a parameter": (holding("_parameters", torch.ones(2)), "_parameters that are none"),
    "number as a buffer": (holding("_buffers", 3.0), "_buffers that are none"),
    "partial as a hook": (holding("_forward_hooks", HUGE), "hooks"),
    "forward hidden": (with_attribute("forward", nn.functional.relu), "'forward' in place of a method"),
    "eval hidden": (with_attribute("eval", nn.functional.relu), "'eval' in place of a method"),
    "modules hidden": (with_attribute("modules", HUGE), "'modules' in place of a method"),
    "class hidden": (with_attribute("__class__", 3), "'__class__' in place of a method"),
    "child of itself": (saved(itself), "holds itself"),
    "list in itself": (saved(list_in_itself), "holds itself"),
    "deep lists": (saved(lambda model: vars(model).update(held=nested(300))), "in each other"),
    "no dictionaries": (with_attribute("_modules", []), "not in plain dictionaries"),
    "long name": (saved(lambda model: model._modules.update({"x" * 5000: nn.ReLU()})), "a part that is called"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_was_rebuilt_is_checked_before_it_is_used(case: str, tmp_path: Path) -> None:
    write, message = WRONG[case]
    write(tmp_path / "model")
    with pytest.raises(ModelFileError, match=message):
        read_model(tmp_path / "model")


def test_a_forward_cannot_construct(tmp_path: Path) -> None:
    saved(lambda model: setattr(model[1], "activation", HUGE))(tmp_path / "model")
    with pytest.raises(ModelFileError, match="the model calls Linear"):
        as_any(read_model(tmp_path / "model"))[1](torch.ones(2, 4))


def doubled(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value, value]
    return value


def test_what_is_held_twice_is_read_once(tmp_path: Path) -> None:
    saved(lambda model: vars(model).update(held=doubled(100)))(tmp_path / "model")
    start = time.perf_counter()
    held = as_any(read_model(tmp_path / "model")).held
    assert held[0] is held[1]
    assert time.perf_counter() - start < SECONDS


STORAGE = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu")
)


def tensor(count: int, offset: int, size: int, stride: int) -> bytes:
    numbers = [b"J" + n.to_bytes(4, "little", signed=True) for n in (count, offset, size, stride)]
    return STORAGE + numbers[0] + b"tQ" + numbers[1] + numbers[2] + b"\x85" + numbers[3] + b"\x85\x89}tR"


def write_with_data(path: Path, body: bytes, data: bytes = bytes(16), **settings: Any) -> None:
    with zipfile.ZipFile(path, "w", **settings) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}" + text("a") + body + b"s.")
        archive.writestr("archive/data/0", data)


SMALL: dict[str, tuple[Callable[[Path], None], str]] = {
    "deep tuple as a key": (lambda p: write_checkpoint(p, b"})" + b"\x85" * 300_000 + b"Ns"), "keys that are neither"),
    "doubled tuple as a key": (lambda p: write_checkpoint(p, b"}" + b")" + b"2\x86" * 40 + b"Ns"), "opcode DUP"),
    "far memo": (lambda p: write_checkpoint(p, b"}r\xff\xff\xff\xff"), "neither a model"),
    "outside": (lambda p: write_with_data(p, tensor(4, 1, 4, 1)), "larger than what is stored"),
    "longer than stored": (lambda p: write_with_data(p, tensor(1 << 30, 0, 1 << 30, 1)), "larger than what is stored"),
    "stretched": (lambda p: write_with_data(p, tensor(4, 0, 1 << 30, 0)), "larger than what is stored"),
    "negative": (lambda p: write_with_data(p, tensor(4, -1, 1, 1)), "sizes that are none"),
    "compressed": (
        lambda p: write_with_data(p, tensor(4, 0, 4, 1), bytes(1 << 26), compression=zipfile.ZIP_DEFLATED),
        "compressed",
    ),
}


@pytest.mark.parametrize("case", SMALL)
def test_small_files_stay_small(case: str, tmp_path: Path) -> None:
    write, message = SMALL[case]
    write(tmp_path / "model")
    start = time.perf_counter()
    with pytest.raises(ModelFileError, match=message):
        read_model(tmp_path / "model")
    assert time.perf_counter() - start < SECONDS


@pytest.mark.parametrize("kind", ["model", "weights"])
def test_a_flipped_bit_is_noticed(kind: str, tmp_path: Path) -> None:
    model, path = nn.Linear(64, 64), tmp_path / "model"
    torch.save(model if kind == "model" else model.state_dict(), path)
    content = bytearray(path.read_bytes())
    place = content.find(model.weight.detach().numpy().tobytes()[:64])
    content[place + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=r"Bad CRC-32 for file '.*data/0'"):
        read_model(path, arch=None if kind == "model" else f"{__name__}:linear")


def linear() -> nn.Module:
    return nn.Linear(64, 64)


def test_views_of_one_storage_and_metadata_come_back(tmp_path: Path) -> None:
    base = torch.arange(12.0)
    state = OrderedDict(a=base[2:8].view(2, 3).T, b=base[4:], c=torch.ones(0, 3), d=torch.tensor(2.5, dtype=torch.half))
    torch.save({"state": state, "size": torch.Size([2, 3]), "flags": {1, 2}, "raw": b"\x00\xff"}, tmp_path / "model")
    torch.save(nn.BatchNorm1d(3).state_dict(), tmp_path / "norm")
    found: Any = load_checkpoint(tmp_path / "model", ())
    assert found["size"] == (2, 3)
    assert (found["flags"], found["raw"]) == ({1, 2}, b"\x00\xff")
    assert found["state"]["a"].untyped_storage().data_ptr() == found["state"]["b"].untyped_storage().data_ptr()
    for name, value in state.items():
        torch.testing.assert_close(found["state"][name], value, rtol=0, atol=0)
    norm: Any = load_checkpoint(tmp_path / "norm", ())
    assert norm._metadata == as_any(nn.BatchNorm1d(3).state_dict())._metadata


IMPORTS = ("__main__", "setup", "conftest", "extra")


@pytest.mark.parametrize("name", IMPORTS)
def test_allowing_a_package_lets_the_file_choose_no_import(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "allowed_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / f"{name}.py").write_text("from pathlib import Path\nPath('RAN').touch()")
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "model", named(f"allowed_package.{name}", "Net") + NEW)
    with pytest.raises(ModelFileError, match="importing what --allow names does not import"):
        read_model(tmp_path / "model", allow=["allowed_package"])
    assert not (tmp_path / "RAN").exists()
    sys.modules.pop("allowed_package", None)
