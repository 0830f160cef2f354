"""The options of the command line that several commands, or one with many of them, take: single, and as groups.

A group is a dataclass; `relcompile.cli.groups` makes an option of each of its fields.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, cast

import typer

if TYPE_CHECKING:
    import torch

    from relcompile.preprocessing import Preprocessing
    from relcompile.question.options import Keywords

Rule: TypeAlias = Annotated[
    str,
    typer.Option(
        "--rule",
        "-r",
        help="A name (see `relcompile rules`), perhaps with parameters (gamma=0.5,bias=plain), a .toml file, or auto: "
        "what suits the network.",
    ),
]
Bounds: TypeAlias = Annotated[str | None, typer.Option(help="LOW,HIGH of the input, for rules that need them.")]
CalibrationFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="What `relcompile calibrate` wrote, for rules that need it.")
]
ReferenceImage: TypeAlias = Annotated[
    str | None, typer.Option(help="What differences are taken from: mean, black, blur, or the file of a picture.")
]
Inputs: TypeAlias = Annotated[
    list[str] | None, typer.Option("--input", "-i", help="[name=]1x3x224x224[:dtype], once per input.")
]


@dataclass(frozen=True)
class ModelFile:
    """The file of a model, and how far it is trusted."""

    model: Annotated[Path, typer.Argument(help="A pickled module, a state dict or safetensors (with --arch).")]
    arch: Annotated[str | None, typer.Option(help="module:callable that builds the model of a state dict.")] = None
    allow: Annotated[list[str] | None, typer.Option(help="Trust the module classes of this package.")] = None
    trust_model_file: Annotated[bool, typer.Option(help="Load the file even if that can run code.")] = False

    def read(self) -> torch.nn.Module:
        """The model; see `relcompile.frontend.reading.model_file.read_model`."""
        from relcompile.frontend.reading.model_file import read_model

        return read_model(self.model, arch=self.arch, allow=tuple(self.allow or ()), trust=self.trust_model_file)


@dataclass(frozen=True)
class Pixels:
    """How photographs become inputs."""

    resize: Annotated[int | None, typer.Option(help="Preprocessing: shorter side in pixels.")] = None
    crop: Annotated[int | None, typer.Option(help="Preprocessing: side of the centre crop.")] = None
    mean: Annotated[
        str | None, typer.Option(help="Preprocessing: a number per channel, in the units of pixels / --scale.")
    ] = None
    std: Annotated[str | None, typer.Option(help="Preprocessing: a number per channel, in the same units.")] = None
    interpolation: Annotated[str | None, typer.Option(help="Preprocessing: bilinear (default) or bicubic.")] = None
    channels: Annotated[str | None, typer.Option(help="Preprocessing: RGB (default) or BGR.")] = None
    scale: Annotated[float | None, typer.Option(help="Preprocessing: divides pixel values; default 255.")] = None

    def preprocessing(self) -> Preprocessing | None:
        """All of it as one object; None if nothing was given."""
        from relcompile.cli import parsing

        return parsing.preprocessing(**given(self))


@dataclass(frozen=True)
class Method:
    """The rule of every layer, and what rules need."""

    rule: Annotated[
        str,
        typer.Option(
            "--rule",
            "-r",
            help="A name (see `relcompile rules`), perhaps with parameters (gamma=0.5,bias=plain), a .toml file, or "
            "auto: what suits the network.",
        ),
    ] = "z+"
    layers: Annotated[
        list[str] | None,
        typer.Option("--layer", help="NAME-GLOB=RULE, as in 'features.0=flat'; may be repeated, the first match wins."),
    ] = None
    plugin: Annotated[
        list[str] | None,
        typer.Option(
            "--plugin",
            help="module:object with rules of your own (an Entry, several, or a Composite); imports the module, which "
            "runs it. May be repeated.",
        ),
    ] = None
    fallback: Annotated[
        str | None,
        typer.Option(help="gradient: operators that the rule refuses get their exact derivative; inspect lists them."),
    ] = None
    bounds: Bounds = None
    calibration: CalibrationFile = None
    reference: Annotated[
        str | None,
        typer.Option(
            help="For deeplift and integrated-gradients, in units of the input: a number, A,B,C, a .npy file (of "
            "several samples: deeplift averages over them), or input (a runtime input)."
        ),
    ] = None
    reference_image: ReferenceImage = None


@dataclass(frozen=True)
class Question:
    """What is explained, read and written; fields are those of `relcompile.question.options.Options`."""

    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            help="index (a runtime input), argmax, a class number, one against another (282-281, 282-others), entry (a "
            "class at a position: one index an axis of the output), region or seed (runtime inputs like the output).",
        ),
    ] = "index"
    explain: Annotated[list[str] | None, typer.Option(help="Explain only these inputs.")] = None
    dynamic: Annotated[
        list[str] | None,
        typer.Option(help="INPUT:AXIS, an axis that is free like the batch: input_ids:1, x:2; may be repeated."),
    ] = None
    output: Annotated[
        str, typer.Option("--explained-output", help="Position, or name, of the output that is explained: 1, logits.")
    ] = "0"
    at: Annotated[str | None, typer.Option(help="Relevance of the output of this layer, not of the input.")] = None
    taps: Annotated[
        list[str] | None, typer.Option("--tap", help="Also relevance of the output of this layer; may be repeated.")
    ] = None
    start: Annotated[
        str | None, typer.Option(help="Relevance starts at the output of this layer: the input `target` is that.")
    ] = None
    masks: Annotated[
        list[str] | None,
        typer.Option("--mask", help="An input (batch, channels) masks what passes this layer; may be repeated."),
    ] = None
    exclude_parallel: Annotated[
        bool, typer.Option("--exclude-parallel", help="Cut what leads around the masked layers (residual connections).")
    ] = False
    reduce: Annotated[
        str | None,
        typer.Option(help="One number for all channels: sum, abs (sum of magnitudes) or max (of magnitudes)."),
    ] = None
    output_dtype: Annotated[str | None, typer.Option(help="float16: relevance in half precision.")] = None
    absorbed: Annotated[bool, typer.Option(help="Also output what biases and stabilisers absorb.")] = False
    roots: Annotated[bool, typer.Option(help="Also output the report on learned roots.")] = False
    forward_derivative: Annotated[
        bool,
        typer.Option(
            "--forward-derivative",
            help="Gradients of a model with custom autograd functions or hooks are those of its forward.",
        ),
    ] = False

    def asked(self) -> Keywords:
        """These fields, as far as the user set them."""
        output = int(self.output) if self.output.isdecimal() else self.output
        return cast("Keywords", given(self) | {"output": output})


def given(group: ModelFile | Pixels | Method | Question) -> dict[str, Any]:
    """What the user gave, by name; the rest is left to whom it is handed to."""
    values = {field.name: getattr(group, field.name) for field in fields(group)}
    return {name: value for name, value in values.items() if not (value is None or value is False or value == [])}
