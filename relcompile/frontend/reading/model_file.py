"""Reads a model from a file. Nothing that the file chooses is run, unless the user trusts the file."""

import importlib
import operator
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present
from torch.nn.parameter import is_lazy

from relcompile.errors import ModelFileError
from relcompile.files.paths import open_input
from relcompile.files.text import printable
from relcompile.frontend.reading.archive import Legacy, broken
from relcompile.frontend.reading.checked_tree import check_tree
from relcompile.frontend.reading.checkpoint import Reader, names_in
from relcompile.frontend.reading.safe_pickle import load_checkpoint, reason, working_directory_importable

ZIP_START = b"PK\x03\x04"
ONNX_START = b"\x08"  # of the version, its first field
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save's magic number before PyTorch 1.6
LARGEST_MODEL = 2**42  # bytes
LONGEST_SAFETENSORS_HEADER = 100_000_000  # the limit of the format
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
WRAPPER_PREFIXES = ("_orig_mod.", "module.")  # torch.compile, DataParallel
ARCH_EXAMPLE = "`--arch torchvision.models:resnet18`"
SHOWN = 3


class _Content(Enum):
    """What a file turned out to hold."""

    CHECKPOINT = "a PyTorch checkpoint"
    LEGACY = "a PyTorch checkpoint of the old format"
    SAFETENSORS = "a safetensors file"
    TORCHSCRIPT = "a TorchScript archive"
    EXPORTED = "a torch.export archive"
    ONNX = "an ONNX file"


def read_model(path: Path, *, arch: str | None = None, allow: Sequence[str] = (), trust: bool = False) -> nn.Module:
    """The model a file holds, in eval mode, on the CPU, in the dtype it was saved in.

    What the file is gets decided by its content, never by its name. A pickled module of torch.nn, torchvision
    or timm, a state dict, a safetensors and an ONNX file are read without running anything that the file chooses (see
    `relcompile.frontend.reading.safe_pickle`). A torch.export archive can run code when loaded: it needs `trust`.
    TorchScript is refused. A refusal is final: nothing is tried a second time with less safety.

    Args:
        path: the file.
        arch: `package.module:callable` for a file that holds only weights. Called without arguments, it
            returns the module for them; every weight has to fit.
        allow: dotted prefixes, like `my_package.models`, whose `nn.Module` classes may be imported and
            filled.
        trust: loads the file in the usual way of PyTorch. **The file may then run any code.**

    Raises:
        ModelFileError: the file is missing, damaged or of another kind; it needs `arch`, `allow` or `trust`;
            or its weights do not fit `arch`.
        passes.errors.UnsupportedOperatorError: lists every node of an ONNX file that cannot be read.
    """
    content = _content(path)
    found = _model_or_weights(_loaded(path, content, allow, trust=trust))
    if isinstance(found, nn.Module):
        if arch is not None:
            raise ModelFileError(f"{path}: holds a whole model, so --arch {arch} is not needed; leave it out")
        return _in_eval_mode(_unwrapped(found, path))
    if found is None:
        raise ModelFileError(
            f"{path}: {content.value}, but with neither a model nor a state dict, at the top or under "
            f"{', '.join(repr(key) for key in STATE_DICT_KEYS)}; save `model.state_dict()`"
        )
    if arch is None:
        raise ModelFileError(
            f"{path}: holds weights only ({len(found)} entries); say which model they belong to, "
            f"like {ARCH_EXAMPLE} or `--arch my_package.models:build`"
        )
    return _filled(_built(arch), found, path, arch)


def _content(path: Path) -> _Content:
    with open_input(path, "the model file", LARGEST_MODEL, ModelFileError) as file:
        start = file.read(len(LEGACY_START))
    if start.startswith(ZIP_START):
        return _archive_content(path)
    if start == LEGACY_START:
        return _Content.LEGACY
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= LONGEST_SAFETENSORS_HEADER:
        return _Content.SAFETENSORS
    if start[:1] == ONNX_START:
        return _Content.ONNX
    what = f"starts with {start!r}" if start else "is empty"
    raise ModelFileError(
        f"{path}: not a model file: it {what}. relcompile reads what `torch.save`, `safetensors` and "
        "`torch.export.save` write, and ONNX files."
    )


def _archive_content(path: Path) -> _Content:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception as error:  # zipfile also raises NotImplementedError, UnicodeDecodeError and more
        raise ModelFileError(
            f"{path}: starts like a checkpoint, but is damaged or cut off ({error}); copy it again"
        ) from error
    members = {name.partition("/")[2] for name in names}
    if "archive_format" in members or "serialized_exported_program.json" in names:
        return _Content.EXPORTED
    if "constants.pkl" in members:
        return _Content.TORCHSCRIPT
    if "data.pkl" in members:
        return _Content.CHECKPOINT
    raise ModelFileError(f"{path}: a zip archive, but not of PyTorch: it holds {', '.join(map(repr, names[:SHOWN]))}")


def _loaded(path: Path, content: _Content, allow: Sequence[str], *, trust: bool) -> object:
    if content is _Content.ONNX:
        return _onnx(path)
    if content is _Content.SAFETENSORS:
        return _attempt(path, content, lambda: safetensors.torch.load_file(path))
    if content is _Content.TORCHSCRIPT:
        raise ModelFileError(
            f"{path}: {content.value}, which cannot be compiled: its program is not Python any more. Save the module "
            "that it was made from, with `torch.save` or `torch.export.save`, or its `state_dict()` for `--arch`."
        )
    if trust:
        with working_directory_importable(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # users of old files cannot help what they warn about
            return _attempt(path, content, lambda: _loaded_with_trust(path, content))
    if content is _Content.CHECKPOINT:
        return load_checkpoint(path, allow)
    if content is _Content.LEGACY:
        return _legacy_weights(path)
    raise ModelFileError(
        f"{path}: {content.value}. Loading one can run code from the file. Ways on: `--trust-model-file` if "
        "you trust it; or save `model.state_dict()` and use `--arch package.module:callable`."
    )


def _onnx(path: Path) -> nn.Module:
    from relcompile.frontend.onnx.reading import read_onnx  # onnx is slow to import

    return read_onnx(path)


def _legacy_weights(path: Path) -> object:
    try:
        with path.open("rb") as file:
            return _read_legacy(Legacy(file))
    except Exception as error:
        raise ModelFileError(
            f"{path}: {_Content.LEGACY.value}, damaged or with more than tensors, which is not read from "
            f"this format ({reason(error)}). Save it again with a newer PyTorch, or use `--trust-model-file` if you "
            "trust it."
        ) from error


def _read_legacy(file: Legacy) -> object:
    program = file.program()
    if names_in(program):
        raise broken("it names classes")
    found: object = Reader(program, file, {}).load()
    check_tree(found, lambda _: None, ())
    file.fill()
    return found


def _loaded_with_trust(path: Path, content: _Content) -> object:
    if content is _Content.EXPORTED:
        return torch.export.load(path).module()
    return torch.load(path, map_location="cpu", weights_only=False)


def _attempt(path: Path, content: _Content, load: Callable[[], object]) -> object:
    try:
        return load()
    except Exception as error:
        raise ModelFileError(f"{path}: {content.value} that cannot be loaded ({reason(error)})") from error


def _model_or_weights(found: object) -> nn.Module | dict[str, Any] | None:
    """The module or the state dict, also out of a training checkpoint; None if there is neither."""
    if isinstance(found, dict):
        inner = (found[key] for key in STATE_DICT_KEYS if isinstance(found.get(key), nn.Module | dict))
        found = next(inner, found)
    if isinstance(found, nn.Module):
        return found
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        return None
    return found if any(isinstance(value, torch.Tensor) for value in found.values()) else None


def _unwrapped(model: nn.Module, path: Path) -> nn.Module:
    inner = getattr(model, "module", None) if isinstance(model, nn.DataParallel) else model
    if not isinstance(inner, nn.Module):
        raise ModelFileError(f"{path}: holds an nn.DataParallel with no module in it")
    return inner


def _in_eval_mode(model: nn.Module) -> nn.Module:
    for module in model.modules():  # `eval()` visits shared parts in every way to them, and exported programs forbid it
        module.training = False
    return model


def _built(arch: str) -> nn.Module:
    """The module that the user's callable returns, on the CPU."""
    module_name, _, attribute = arch.partition(":")
    if not (module_name and attribute):
        raise ModelFileError(f"--arch {arch}: write package.module:callable, like {ARCH_EXAMPLE}")
    try:
        with working_directory_importable():
            build = operator.attrgetter(attribute)(importlib.import_module(module_name))
            model = build()
        on_cpu = model.cpu() if isinstance(model, nn.Module) else None
    except (Exception, SystemExit) as error:  # a script that ends itself
        raise ModelFileError(
            f"--arch {arch}: {reason(error)}. It has to be importable from the working directory and "
            "callable without arguments."
        ) from error
    if on_cpu is None:
        raise ModelFileError(f"--arch {arch}: returned a {type(model).__name__}, not an nn.Module")
    return on_cpu


def _filled(model: nn.Module, given: dict[str, Any], path: Path, arch: str) -> nn.Module:
    expected = model.state_dict()
    for prefix in WRAPPER_PREFIXES:
        wrapped = all(name.startswith(prefix) for name in given)
        if wrapped and not any(name.startswith(prefix) for name in expected):
            consume_prefix_in_state_dict_if_present(given, prefix)
    try:
        model.load_state_dict(given, strict=True)
    except Exception as error:
        raise ModelFileError(
            f"{path}: does not fit --arch {arch}: {_mismatch(expected, given) or reason(error)}"
        ) from error
    return model.eval()


def _mismatch(expected: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    sizes = [
        f"{name} (file {tuple(given[name].shape)}, model {tuple(value.shape)})"
        for name, value in expected.items()
        if isinstance(given.get(name), torch.Tensor)
        and isinstance(value, torch.Tensor)
        and not is_lazy(value)
        and given[name].shape != value.shape
    ]
    parts = (
        _listed("missing in the file", [name for name in expected if name not in given]),
        _listed("unknown to the model", [name for name in given if name not in expected]),
        _listed("of another size", sizes),
    )
    return "; ".join(part for part in parts if part)


def _listed(what: str, names: Sequence[str]) -> str:
    more = ", ..." if names[SHOWN:] else ""
    return f"{len(names)} {what}: {', '.join(map(printable, names[:SHOWN]))}{more}" if names else ""
