"""What a file may hold, and which weights fit which model."""

import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn
from torch.nn import functional

from relcompile.errors import ModelFileError
from relcompile.frontend.reading.model_file import read_model
from relcompile.frontend.reading.safe_pickle import Unbuilt
from tests.frontend.zoo import PACKAGE, same, tiny

KNOWN_MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "resnet": lambda: (torchvision.models.resnet18(), torch.randn(1, 3, 64, 64)),
    "densenet": lambda: (
        torchvision.models.DenseNet(4, (1, 1, 1, 1), 4, num_classes=3),
        torch.randn(1, 3, 64, 64),
    ),
    "vit": lambda: (
        torchvision.models.VisionTransformer(16, 8, 1, 2, 8, 16, num_classes=3),
        torch.randn(1, 3, 16, 16),
    ),
    "mobilenet": lambda: (torchvision.models.mobilenet_v3_small(), torch.randn(1, 3, 64, 64)),
    "stored function": lambda: (
        nn.TransformerEncoderLayer(8, 2, 16, activation=functional.gelu),
        torch.randn(4, 1, 8),
    ),
    "recurrent": lambda: (nn.Sequential(nn.LSTM(3, 4)), torch.randn(5, 1, 3)),
}


@pytest.mark.parametrize("name", KNOWN_MODELS)
def test_known_models_are_read_without_trust(name: str, tmp_path: Path) -> None:
    model, x = KNOWN_MODELS[name]()
    torch.save(model, tmp_path / "model")
    read = read_model(tmp_path / "model")
    assert same(model, read)
    assert not any(module.training for module in read.modules())
    torch.testing.assert_close(read(x), model.eval()(x), rtol=0, atol=0)


def test_members_of_timms_enumeration_are_read(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
    torch.save(model, tmp_path / "model")
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(read_model(tmp_path / "model")(x), model.eval()(x), rtol=0, atol=0)


def test_classes_and_partials_come_back_as_values_that_construct_nothing(tmp_path: Path) -> None:
    for name in ("resnet", "vit"):
        model: Any = KNOWN_MODELS[name]()[0]
        model.nested = {"kinds": [nn.ReLU, (nn.Linear, OrderedDict(kind=nn.GELU))]}
        torch.save({"model": model}, tmp_path / name)
    resnet: Any = read_model(tmp_path / "resnet")
    vit: Any = read_model(tmp_path / "vit")
    assert resnet._norm_layer == Unbuilt("BatchNorm2d")
    assert resnet.nested == {"kinds": [Unbuilt("ReLU"), (Unbuilt("Linear"), {"kind": Unbuilt("GELU")})]}
    assert vit.norm_layer == Unbuilt("LayerNorm")
    with pytest.raises(ModelFileError, match="the model calls LayerNorm"):
        vit.norm_layer(4)


def wrapped(model: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    return OrderedDict((f"{prefix}{name}", value) for name, value in model.state_dict().items())


def save_legacy(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


WEIGHT_FILES: dict[str, Callable[[nn.Module, Path], object]] = {
    "state dict": lambda model, path: torch.save(model.state_dict(), path),
    "legacy format": lambda model, path: save_legacy(model.state_dict(), path),
    "safetensors": lambda model, path: safetensors.torch.save_file(model.state_dict(), path),
    "under state_dict": lambda model, path: torch.save({"epoch": 3, "state_dict": model.state_dict()}, path),
    "under model": lambda model, path: torch.save({"model": model.state_dict()}, path),
    "DataParallel": lambda model, path: torch.save({"model": wrapped(model, "module.")}, path),
    "compiled": lambda model, path: torch.save(wrapped(model, "_orig_mod."), path),
    "compiled DataParallel": lambda model, path: torch.save(wrapped(model, "_orig_mod.module."), path),
}


@pytest.mark.parametrize("name", ["model.onnx", "model"])
@pytest.mark.parametrize("form", WEIGHT_FILES)
def test_weights_are_found_and_filled_in(form: str, name: str, tmp_path: Path) -> None:
    model = tiny()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    WEIGHT_FILES[form](model, tmp_path / name)
    read = read_model(tmp_path / name, arch=f"{__name__}:tiny")
    assert same(model, read)
    assert not read.training
    with pytest.raises(ModelFileError, match=r"weights only \(9 entries\).*--arch torchvision.models:resnet18"):
        read_model(tmp_path / name)


def test_a_model_that_has_the_wrapper_prefix_itself_keeps_it(tmp_path: Path) -> None:
    torch.save(holder().state_dict(), tmp_path / "model")
    assert same(read_model(tmp_path / "model", arch=f"{__name__}:holder"), holder())


def holder() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"module": nn.Linear(2, 2)})


MODULE_FILES: dict[str, Callable[[nn.Module], object]] = {
    "plain": lambda model: model,
    "under model": lambda model: {"epoch": 3, "model": model},
    "DataParallel": nn.DataParallel,
}


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("form", MODULE_FILES)
def test_modules_are_unwrapped_and_need_no_arch(form: str, trust: bool, tmp_path: Path) -> None:
    torch.save(MODULE_FILES[form](tiny()), tmp_path / "model")
    read = read_model(tmp_path / "model", trust=trust)
    assert same(tiny(), read)
    assert not read.training
    with pytest.raises(ModelFileError, match="--arch a:b is not needed"):
        read_model(tmp_path / "model", arch="a:b", trust=trust)


def save_scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(tiny().float().eval(), torch.randn(1, 3, 4, 4)), path)


def save_exported(path: Path) -> None:
    with warnings.catch_warnings(), path.open("wb") as file:
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(tiny().float().eval(), (torch.randn(1, 3, 4, 4),)), file)


def test_exported_programs_need_trust(tmp_path: Path) -> None:
    save_exported(tmp_path / "model")
    for arch in (None, "a:b"):
        with pytest.raises(ModelFileError, match=r"a torch.export archive.*can run code.*--trust-model-file"):
            read_model(tmp_path / "model", arch=arch)
    read = read_model(tmp_path / "model", trust=True)
    x = torch.randn(1, 3, 4, 4)
    assert not any(module.training for module in read.modules())
    torch.testing.assert_close(read(x), tiny().float().eval()(x))


@pytest.mark.parametrize("trust", [False, True])
def test_torchscript_is_refused(trust: bool, tmp_path: Path) -> None:
    save_scripted(tmp_path / "model")
    with pytest.raises(ModelFileError, match=r"a TorchScript archive.*Save the module that it was made from"):
        read_model(tmp_path / "model", trust=trust)


# Files that are not models


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")


def write_cut(path: Path, share: float, save: Callable[[Path], object]) -> None:
    save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


NOT_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot be read: there is no such file"),
    "directory": (Path.mkdir, "it is a folder, not a regular file"),
    "empty": (Path.touch, "not a model file: it is empty"),
    "empty onnx": (lambda path: path.write_bytes(b"\x08\n\x12\nrelcompile"), "has no input"),
    "text": (lambda path: path.write_text("A text about models."), "starts with b'A text about"),
    "brace": (lambda path: path.write_text("function{ return 1 }"), "starts with b'function{"),
    "json": (lambda path: path.write_text('{"a": {"b": {}}}'), "starts with b'{"),
    "other zip": (write_zip, "not of PyTorch: it holds 'word/document.xml'"),
    "cut zip": (lambda path: write_cut(path, 0.5, lambda to: torch.save(tiny(), to)), "damaged or cut off"),
    "cut legacy": (
        lambda path: write_cut(path, 0.5, lambda to: save_legacy(tiny().state_dict(), to)),
        "old format, damaged",
    ),
    "cut safetensors": (
        lambda path: write_cut(path, 0.5, WEIGHT_FILES["safetensors"].__get__(tiny())),
        "a safetensors file that cannot be loaded",
    ),
    "legacy module": (lambda path: save_legacy(tiny(), path), "more than tensors.*Save it again"),
    "list": (lambda path: torch.save([torch.ones(2)], path), "neither a model nor a state dict"),
    "no weights": (lambda path: torch.save({"epoch": 3}, path), "neither a model nor a state dict"),
    "empty dict": (lambda path: torch.save({}, path), "neither a model nor a state dict"),
    "protocol 4": (lambda path: torch.save(tiny(), path, pickle_protocol=4), "not of pickle protocol 2"),
}


@pytest.mark.parametrize("case", NOT_MODELS)
def test_other_files_are_refused_by_name(case: str, tmp_path: Path) -> None:
    make, message = NOT_MODELS[case]
    path = tmp_path / "model.pt"
    make(path)
    with pytest.raises(ModelFileError, match=message) as caught:
        read_model(path, arch=f"{__name__}:tiny")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# Weights and the model they belong to


ARCH_ERRORS = {
    "torchvision.models": "write package.module:callable, like `--arch torchvision.models:resnet18`",
    ":build": "write package.module:callable",
    "no_such_package.models:build": "ModuleNotFoundError: No module named 'no_such_package'",
    f"{PACKAGE}.models:missing": "AttributeError.*missing.*importable from the working directory",
    f"{PACKAGE}.models:constructed": "TypeError.*callable without arguments",
    f"{PACKAGE}.models:weightless": "NotImplementedError: Cannot copy out of meta tensor",
    f"{PACKAGE}.models:broken": r"ValueError: first line\. It has to be",
    f"{PACKAGE}.models:number": "returned a int, not an nn.Module",
    "torch.nn:Linear": "TypeError.*callable without arguments",
}


@pytest.mark.parametrize("arch", ARCH_ERRORS)
def test_wrong_arch(arch: str, zoo: Path) -> None:
    torch.save(tiny().state_dict(), zoo / "model")
    with pytest.raises(ModelFileError, match=ARCH_ERRORS[arch]):
        read_model(zoo / "model", arch=arch)


def test_arch_is_found_in_the_working_directory(zoo: Path) -> None:
    state = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.zeros(2)}
    torch.save(state, zoo / "model")
    before = list(sys.path)
    read = read_model(zoo / "model", arch=f"{PACKAGE}.models:Net")
    assert torch.equal(read.get_parameter("fc.weight"), state["fc.weight"])
    assert sys.path == before


def changed(**values: torch.Tensor | None) -> dict[str, torch.Tensor]:
    state = {**tiny().state_dict(), **{name.replace("_", ".", 1): value for name, value in values.items()}}
    return {name: value for name, value in state.items() if value is not None}


ONE = torch.ones(1)
MISFITS = {
    "missing": (changed(**{"0_weight": None}), r"1 missing in the file: 0\.weight"),
    "unknown": (
        changed(**{f"{i}_extra": ONE for i in range(5)}),
        r"5 unknown.*0\.extra, 1\.extra, 2\.extra, \.\.\.",
    ),
    "size": (
        changed(**{"4_bias": torch.ones(7)}),
        r"1 of another size: 4\.bias \(file \(7,\), model \(2,\)\)",
    ),
    "all": (
        changed(**{"0_weight": None, "a_b": ONE, "4_bias": ONE}),
        r"1 missing.*0\.weight; 1 unknown.*a\.b; 1 of another size",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_weights_that_do_not_fit(case: str, tmp_path: Path) -> None:
    state, message = MISFITS[case]
    torch.save(state, tmp_path / "model")
    with pytest.raises(ModelFileError, match=f"does not fit --arch .*:tiny: {message}"):
        read_model(tmp_path / "model", arch=f"{__name__}:tiny")
