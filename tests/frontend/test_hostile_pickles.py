"""Nothing that a file chooses is run."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from relcompile.errors import ModelFileError
from relcompile.frontend.reading.model_file import read_model
from relcompile.frontend.reading.safe_pickle import PURE_FUNCTIONS
from tests.frontend.pickles import CALL_0, LINEAR, MODULE, NEW, named, text, write_checkpoint
from tests.frontend.zoo import PACKAGE

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
    "call of a module": (REBUILD % (named(LINEAR, "Identity") + NEW + b"}b", b"N"), UNKNOWN),
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
        "Identity without children, parameters or buffers",
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
    "call": (lambda net: net + CALL_0, STOPPED),
    "call by a rebuild function": (lambda net: REBUILD % (net, net), UNKNOWN),
}


@pytest.mark.parametrize("case", CONSTRUCTIONS)
def test_constructors_of_allowed_classes_do_not_run(case: str, zoo: Path) -> None:
    make, message = CONSTRUCTIONS[case]
    write_checkpoint(zoo / "model", make(named(f"{PACKAGE}.models", "Net")))
    with pytest.raises(ModelFileError, match=message):
        read_model(zoo / "model", allow=[PACKAGE])
    assert message == UNKNOWN or sys.modules[f"{PACKAGE}.models"].constructed == 0


def test_a_refusal_comes_before_any_import(zoo: Path) -> None:
    own = named(f"{PACKAGE}.models", "Net") + NEW
    write_checkpoint(zoo / "model", own + named("posix", "mkdir") + text("ran") + b"\x85R\x86")
    with pytest.raises(ModelFileError, match=r"'posix\.mkdir'") as caught:
        read_model(zoo / "model", allow=[PACKAGE])
    assert PACKAGE not in sys.modules
    assert "--allow" not in str(caught.value)


@pytest.mark.parametrize("function", PURE_FUNCTIONS, ids=lambda function: function.__name__)
def test_allowed_functions_are_tensor_in_tensor_out(function: Callable[..., Any], tmp_path: Path) -> None:
    model: Any = nn.Identity()
    model.function = function
    torch.save(model, tmp_path / "model")
    assert read_model(tmp_path / "model").function is function
    dim = {"dim": -1} if "softmax" in function.__name__ else {}
    assert isinstance(function(torch.ones(2), **dim), torch.Tensor)
