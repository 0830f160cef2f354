"""Descriptions of a model's inputs: "1x3x224x224", "tokens=1x16:int64"."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch

from relcompile.errors import InputSpecError
from relcompile.frontend.capture import forward_parameters
from relcompile.frontend.onnx.model import OnnxModel

_SPEC = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")
_DTYPES = ("float32", "float64", "int32", "int64", "bool")
_HALF = ("float16", "half", "bfloat16")
_MOST_CHANNELS = 10_000  # of an input whose shape is guessed: a file says what it likes
_MOST_ELEMENTS = 2**28  # of an example that nobody asked for
_MOST_ASKED_FOR = 2**30
_IMAGE_SIZE, _INCEPTION_SIZE = 224, 299


def example_inputs(model: torch.nn.Module, specs: Sequence[str], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors for the inputs that `specs` describe, in the order of `forward`; names come first.

    Args:
        model: whose `forward` takes them.
        specs: "[name=]SIZExSIZE...[:dtype]", the batch first; those without a name are for the inputs that are left.
        seed: of the random numbers: standard normal for floats, zeros for integers.

    Raises:
        InputSpecError: a description cannot be read, two are for one input, or there are more of them than inputs.
    """
    names = forward_parameters(model)
    generator = torch.Generator().manual_seed(seed)
    if len(specs) > len(names):
        raise InputSpecError(f"forward takes {len(names)} inputs ({', '.join(names)}), {len(specs)} were described")
    parsed = [parse_spec(spec) for spec in specs]
    given = [name for name, _, _ in parsed if name]
    if len(set(given)) < len(given):
        raise InputSpecError(f"an input is described twice: {', '.join(given)}")
    free = (name for name in names if name not in given)
    inputs = dict[str, torch.Tensor]()
    for name, shape, dtype in parsed:
        random = torch.randn(shape, generator=generator)
        inputs[name or next(free)] = random.to(dtype) if dtype.is_floating_point else torch.zeros(shape, dtype=dtype)
    return {name: inputs[name] for name in sorted(inputs, key=[*names, *given].index)}


def parse_spec(text: str) -> tuple[str | None, list[int], torch.dtype]:
    """(name, shape, dtype) of "[name=]SIZExSIZE...[:dtype]".

    Raises:
        InputSpecError: it does not read like that, or a size is 0.
    """
    match = _SPEC.fullmatch(text.strip())
    dtype = (match["dtype"] if match else None) or "float32"
    if dtype in _HALF:
        raise InputSpecError(
            f"input {text!r} is of half precision, in which stabilisers and sums of relevance are lost; describe it as "
            "float32, and convert a model of half precision: model.float()"
        )
    if match is None or dtype not in _DTYPES:
        raise InputSpecError(
            f"input {text!r} does not read [name=]1x3x224x224[:dtype] with a dtype of {', '.join(_DTYPES)}"
        )
    shape = [int(size) for size in match["shape"].split("x")]
    if 0 in shape:
        raise InputSpecError(f"input {text!r} has a size of 0")
    if math.prod(shape) > _MOST_ASKED_FOR:
        raise InputSpecError(f"input {text!r} has more than {_MOST_ASKED_FOR:,} numbers")
    return match["name"], shape, getattr(torch, dtype)


def default_specs(model: torch.nn.Module) -> tuple[str, ...]:
    """What the model usually takes: as its file declares it, or what a classifier of its first layer does.

    Raises:
        InputSpecError: neither gives a hint.
    """
    return _declared(model) if isinstance(model, OnnxModel) else (_guessed(model),)


def _declared(model: OnnxModel) -> tuple[str, ...]:
    """The inputs of an ONNX file, one sample of each; axes of one element stand for none."""
    described = list[str]()
    for declared in model.graph.inputs:
        sizes = ["1", *("?" if size is None else str(size) for size in declared.shape[1:])]
        described.append(f"{declared.identifier}={'x'.join(sizes)}:{str(declared.dtype).removeprefix('torch.')}")
    if any("?" in spec or _elements(spec) > _MOST_ELEMENTS for spec in described):
        options = " ".join(f"--input {spec}" for spec in described)
        raise InputSpecError(f"{model.graph.path} leaves sizes of its inputs open: give {options}, with numbers for ?")
    return tuple(described)


def _elements(spec: str) -> int:
    return math.prod(map(int, spec.partition("=")[2].partition(":")[0].split("x")))


def _guessed(model: torch.nn.Module) -> str:
    size = _INCEPTION_SIZE if type(model).__name__.startswith("Inception") else _IMAGE_SIZE
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d) and _is_usual(vars(layer).get("in_channels")):
            return f"1x{layer.in_channels}x{size}x{size}"
        if isinstance(layer, torch.nn.Linear) and _is_usual(vars(layer).get("in_features")):
            return f"1x{layer.in_features}"
    raise InputSpecError("the model's input shape cannot be guessed; give --input 1x3x224x224")


def _is_usual(size: object) -> bool:
    return type(size) is int and 0 < size <= _MOST_CHANNELS
