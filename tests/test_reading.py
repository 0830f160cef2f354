"""Reading models: what a file holds, which weights fit, and that nothing a file chooses is run."""

import importlib
import os
import sys
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn
from torch.nn import functional

from relcompile.errors import ModelFileError
from relcompile.reading import read_model
from relcompile.safe_pickle import PURE_FUNCTIONS

PACKAGE = "reading_zoo"
MODELS_SOURCE = """
import torch
constructed = 0

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        global constructed
        constructed += 1
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x).relu()

class Measured(Net):
    def __setstate__(self, state):
        super().__setstate__(state)
        self.width = self.fc.in_features

class Settings:
    pass

def weightless():
    return torch.nn.Linear(3, 2, device="meta")

def number():
    return 3

def broken():
    raise ValueError("first line\\nsecond line")
"""


def tiny() -> nn.Module:
    """A model whose state has a buffer, an integer and two dtypes."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2).double())


@pytest.fixture
def zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package in the working directory, not imported yet; forgotten afterwards."""
    for name in ("models", "models_evil"):
        (tmp_path / PACKAGE / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / PACKAGE / f"{name}.py").write_text(MODELS_SOURCE)
    (tmp_path / PACKAGE / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    forget_zoo()


def forget_zoo() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def saved_zoo_model(path: Path, module: str, name: str = "Net", inner: str | None = None) -> Path:
    """A pickled instance of a class of the zoo, which is forgotten again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path))
        found = importlib.import_module(f"{PACKAGE}.{module}")
        model = getattr(found, name)()
        if inner is not None:
            model.settings = getattr(found, inner)()
        torch.save(model, path / "zoo.pt")
    forget_zoo()
    return path / "zoo.pt"


def same(left: nn.Module, right: nn.Module) -> bool:
    """The same classes, plain attributes and weights."""
    pairs = list(zip(left.named_modules(), right.named_modules(), strict=True))
    classes = all(name == other and type(a) is type(b) for (name, a), (other, b) in pairs)
    attributes = all(
        value == vars(b)[key] and type(value) is type(vars(b)[key])
        for (_, a), (_, b) in pairs
        for key, value in vars(a).items()
        if not key.startswith("_") and key != "training" and "partial" not in type(value).__name__
    )
    states = left.state_dict(), right.state_dict()
    equal = [a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*(x.values() for x in states), strict=True)]
    return classes and attributes and all(equal) and list(states[0]) == list(states[1])


# What a file may hold


KNOWN_MODELS: dict[str, Callable[[], tuple[nn.Module, torch.Tensor]]] = {
    "resnet": lambda: (torchvision.models.resnet18(), torch.randn(1, 3, 64, 64)),
    "densenet": lambda: (
        torchvision.models.DenseNet(4, (1, 1), 4, num_classes=3),
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


def test_classes_and_partials_come_back_as_attributes(tmp_path: Path) -> None:
    for name in ("resnet", "vit"):
        model, _ = KNOWN_MODELS[name]()
        model.nested = {"kinds": [nn.ReLU, (nn.Linear, OrderedDict(kind=nn.GELU))]}
        torch.save({"model": model}, tmp_path / name)
    resnet, vit = read_model(tmp_path / "resnet"), read_model(tmp_path / "vit")
    assert resnet._norm_layer is nn.BatchNorm2d
    assert resnet.nested == {"kinds": [nn.ReLU, (nn.Linear, {"kind": nn.GELU})]}
    assert vit.norm_layer(4).eps == 1e-6
    assert isinstance(vit.norm_layer(4), nn.LayerNorm)


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


ARCHIVES = {
    "TorchScript": (save_scripted, "a TorchScript archive"),
    "torch.export": (save_exported, "a torch.export archive"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_archives_need_trust(kind: str, tmp_path: Path) -> None:
    save, name = ARCHIVES[kind]
    save(tmp_path / "model")
    for arch in (None, "a:b"):
        with pytest.raises(ModelFileError, match=f"{name}.*can run code.*--trust-model-file"):
            read_model(tmp_path / "model", arch=arch)
    read = read_model(tmp_path / "model", trust=True)
    x = torch.randn(1, 3, 4, 4)
    assert not any(module.training for module in read.modules())
    torch.testing.assert_close(read(x), tiny().float().eval()(x))


# Files that are not models


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")


def write_cut(path: Path, share: float, save: Callable[[Path], object]) -> None:
    save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


NOT_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "cannot be read: No such file"),
    "directory": (Path.mkdir, "not a file"),
    "empty": (Path.touch, "not a model file: it is empty"),
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
    assert str(caught.value).startswith(f"{path}: ")
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
    assert torch.equal(read.fc.weight, state["fc.weight"])
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


# Foreign classes


def test_a_foreign_class_is_named_with_three_ways_on_and_not_imported(zoo: Path) -> None:
    path = saved_zoo_model(zoo, "models")
    before = set(sys.modules)
    with pytest.raises(ModelFileError, match=rf"'{PACKAGE}\.models\.Net'") as caught:
        read_model(path)
    assert set(sys.modules) == before
    for way in (f"`--allow {PACKAGE}.models`", "`--trust-model-file`", "`--arch package.module:callable`"):
        assert way in str(caught.value)


ALLOWED = {
    "module": (f"{PACKAGE}.models", True),
    "package": (PACKAGE, True),
    "class": (f"{PACKAGE}.models.Net", True),
    "half a name": (f"{PACKAGE}.mod", False),
    "other class": (f"{PACKAGE}.models.Ne", False),
    "longer name": (f"{PACKAGE}.models.Net.x", False),
    "nothing": ("", False),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_allow_respects_dots(case: str, zoo: Path) -> None:
    prefix, enough = ALLOWED[case]
    path = saved_zoo_model(zoo, "models")
    if enough:
        assert type(read_model(path, allow=[prefix])).__name__ == "Net"
        assert sys.modules[f"{PACKAGE}.models"].constructed == 0
    else:
        with pytest.raises(ModelFileError, match="does not know to be harmless"):
            read_model(path, allow=[prefix])


def test_allow_stops_at_a_module_whose_name_goes_on(zoo: Path) -> None:
    path = saved_zoo_model(zoo, "models_evil")
    with pytest.raises(ModelFileError, match=r"models_evil\.Net"):
        read_model(path, allow=[f"{PACKAGE}.models"])
    assert PACKAGE not in sys.modules


def test_allow_is_for_module_classes(zoo: Path) -> None:
    path = saved_zoo_model(zoo, "models", inner="Settings")
    with pytest.raises(ModelFileError, match=r"not plain nn\.Module classes.*models\.Settings"):
        read_model(path, allow=[PACKAGE])
    assert type(read_model(path, trust=True).settings).__name__ == "Settings"


def test_one_allow_is_offered_for_a_package(tmp_path: Path) -> None:
    names = [named(f"{PACKAGE}.{place}", "Net") for place in ("models.a", "models.b", "models.b.c")]
    write_checkpoint(tmp_path / "model", b"".join(names))
    with pytest.raises(ModelFileError, match=rf"`--allow {PACKAGE}\.models` if"):
        read_model(tmp_path / "model")


def test_all_unfit_names_are_listed_and_allowing_them_is_not_offered(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", named(MODULE, "_addindent") + named(MODULE, "_IncompatibleKeys"))
    with pytest.raises(ModelFileError, match=r"'torch\S+\._IncompatibleKeys', '\S+\._addindent'") as caught:
        read_model(tmp_path / "model")
    assert "--allow" not in str(caught.value)


def test_the_inside_of_a_module_is_there_when_its_state_is_set(zoo: Path) -> None:
    path = saved_zoo_model(zoo, "models", name="Measured")
    assert read_model(path, allow=[PACKAGE]).width == 3


def test_known_libraries_are_not_taken_from_the_working_directory(zoo: Path) -> None:
    (zoo / "timm").mkdir()
    (zoo / "timm" / "__init__.py").write_text("open('ran', 'w').close()")
    (zoo / "timm" / "models.py").write_text(MODELS_SOURCE)
    write_checkpoint(zoo / "model", named("timm.models", "Net") + NEW)
    with pytest.raises(ModelFileError, match=r"timm\.models\.Net"):
        read_model(zoo / "model", allow=[PACKAGE])
    assert not (zoo / "ran").exists()


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model", named("torchvision.models.no_such", "Net") + NEW)
    with pytest.raises(ModelFileError, match=r"needs 'torchvision\.models\.no_such\.Net', .* cannot be imported"):
        read_model(tmp_path / "model")


# Hostile pickles


NEW, CALL, CALL_0 = b")\x81", b"R", b")R"
MODULE, LINEAR = "torch.nn.modules.module", "torch.nn.modules.linear"


def named(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(value: str) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def write_checkpoint(path: Path, body: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + body + b".")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


CALL_TWO_ARGUMENTS = b"K\x02K\x03\x86R"
REBUILD = named("torch._tensor", "_rebuild_from_type_v2") + b"(%b%b)}tR"
UNKNOWN, NOT_PLAIN, STOPPED = "not know to be harmless", "not plain nn.Module", "safe reader stopped"
HOSTILE = {
    "function call": (named("posix", "mkdir") + text("ran") + b"\x85R", UNKNOWN),
    "builtin": (named("builtins", "eval") + text("open('ran', 'w')") + b"\x85R", UNKNOWN),
    "old builtin name": (named("__builtin__", "eval") + text("open('ran', 'w')") + b"\x85R", UNKNOWN),
    "getattr": (
        named("builtins", "getattr") + named(LINEAR, "Linear") + text("__init__") + b"\x86R",
        UNKNOWN,
    ),
    "through a library": (named(f"{MODULE}.functools", "partial"), "cannot be imported"),
    "path in a name": (named(MODULE, "functools.partial"), "cannot be imported"),
    "function of a library": (named("torchvision.models._api", "load_state_dict_from_url"), NOT_PLAIN),
    "private function": (named(MODULE, "_addindent") + text("x") + b"K\x02\x86R", NOT_PLAIN),
    "imported class": (named("torch.nn.modules.container", "Module") + NEW, NOT_PLAIN),
    "other class": (named(MODULE, "_IncompatibleKeys") + NEW, NOT_PLAIN),
    "source code": (named("torchvision.models.feature_extraction", "DualGraphModule") + NEW, NOT_PLAIN),
    "constructor": (named(LINEAR, "Linear") + CALL_TWO_ARGUMENTS, STOPPED),
    "new with arguments": (named(LINEAR, "Linear") + b"K\x02\x85\x81", STOPPED),
    "call of a module": (REBUILD % (named(LINEAR, "Identity") + NEW + b"}b", b"N"), "not callable"),
    "empty module": (named(LINEAR, "Linear") + NEW, STOPPED),
    "partial of a function": (
        named("functools", "partial")
        + named("torch.nn.functional", "relu")
        + b"\x85R("
        + named("torch.nn.functional", "relu")
        + b")}Ntb",
        "partial of something that is not a module class",
    ),
    "partial called": (named("functools", "partial") + named(LINEAR, "Linear") + b"\x85R)R", STOPPED),
    "partial with a module": (
        named("functools", "partial")
        + named(LINEAR, "Linear")
        + b"\x85R("
        + named(LINEAR, "Linear")
        + named(LINEAR, "Identity")
        + b")\x81\x85}Ntb",
        "partial with arguments that are not plain",
    ),
    "children that are no modules": (
        named(LINEAR, "Identity") + NEW + b"}" + text("_modules") + b"}" + text("a") + b"K\x02ssb",
        "Identity with children that are no modules",
    ),
    "escape codes": (named("evil\x1b[2J", "Net"), r"'evil\\x1b\[2J\.Net'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused_and_run_nothing(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, message = HOSTILE[case]
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "model", body)
    safe_before = set(torch.serialization.get_safe_globals())
    with pytest.raises(ModelFileError, match=message):
        read_model(tmp_path / "model")
    assert os.listdir(tmp_path) == ["model"]
    assert set(torch.serialization.get_safe_globals()) == safe_before


def test_the_hostile_pickles_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_checkpoint(tmp_path / "model", HOSTILE["function call"][0])
    with pytest.raises(ModelFileError, match="neither a model"):
        read_model(tmp_path / "model", trust=True)
    assert (tmp_path / "ran").is_dir()


CONSTRUCTIONS = {
    "call": lambda net: net + CALL_0,
    "call by a rebuild function": lambda net: REBUILD % (net, net),
}


@pytest.mark.parametrize("case", CONSTRUCTIONS)
def test_constructors_of_allowed_classes_do_not_run(case: str, zoo: Path) -> None:
    write_checkpoint(zoo / "model", CONSTRUCTIONS[case](named(f"{PACKAGE}.models", "Net")))
    with pytest.raises(ModelFileError, match=STOPPED):
        read_model(zoo / "model", allow=[PACKAGE])
    assert sys.modules[f"{PACKAGE}.models"].constructed == 0


def test_a_refusal_comes_before_any_import(zoo: Path) -> None:
    own = named(f"{PACKAGE}.models", "Net") + NEW
    write_checkpoint(zoo / "model", own + named("posix", "mkdir") + text("ran") + b"\x85R\x86")
    with pytest.raises(ModelFileError, match=r"'posix\.mkdir'") as caught:
        read_model(zoo / "model", allow=[PACKAGE])
    assert PACKAGE not in sys.modules
    assert "--allow" not in str(caught.value)


@pytest.mark.parametrize("function", PURE_FUNCTIONS, ids=lambda function: function.__name__)
def test_allowed_functions_are_tensor_in_tensor_out(function: Callable[..., Any], tmp_path: Path) -> None:
    model = nn.Identity()
    model.function = function
    torch.save(model, tmp_path / "model")
    assert read_model(tmp_path / "model").function is function
    dim = {"dim": -1} if "softmax" in function.__name__ else {}
    assert isinstance(function(torch.ones(2), **dim), torch.Tensor)
