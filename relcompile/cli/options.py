"""The options of the command line that several commands, or one with many of them, take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Model: TypeAlias = Annotated[Path, typer.Argument(help="A pickled module, a state dict or safetensors (with --arch).")]
Rule: TypeAlias = Annotated[
    str,
    typer.Option(
        "--rule",
        "-r",
        help="A name (see `relcompile rules`), perhaps with parameters (gamma=0.5,bias=plain), a .toml file, or auto: "
        "what suits the network.",
    ),
]
Layers: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--layer", help="NAME-GLOB=RULE, as in 'features.0=flat'; may be repeated, the first match wins."),
]
Plugins: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        help="module:object with rules of your own (an Entry, several, or a Composite); imports the module, which runs "
        "it. May be repeated.",
    ),
]
Fallback: TypeAlias = Annotated[
    str | None,
    typer.Option(help="gradient: operators that the rule refuses get their exact derivative; inspect lists them."),
]
Bounds: TypeAlias = Annotated[str | None, typer.Option(help="LOW,HIGH of the input, for rules that need them.")]
CalibrationFile: TypeAlias = Annotated[
    Path | None, typer.Option(help="What `relcompile calibrate` wrote, for rules that need it.")
]
Output: TypeAlias = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="An .onnx or .pt2 file. Default: MODEL.RULE[.LAYER][.TARGET][.AT]....onnx"),
]
Inputs: TypeAlias = Annotated[
    list[str] | None, typer.Option("--input", "-i", help="[name=]1x3x224x224[:dtype], once per input.")
]
Target: TypeAlias = Annotated[
    str,
    typer.Option(
        "--target",
        "-t",
        help="index (a runtime input), argmax, seed, a class number, or one against another (282-281, 282-others).",
    ),
]
Reference: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="For deeplift and integrated-gradients, in units of the input: a number, A,B,C, a .npy file (of several "
        "samples: deeplift averages over them), or input (a runtime input)."
    ),
]
ReferenceImage: TypeAlias = Annotated[
    str | None, typer.Option(help="What differences are taken from: mean, black, blur, or the file of a picture.")
]
Arch: TypeAlias = Annotated[str | None, typer.Option(help="module:callable that builds the model of a state dict.")]
Allow: TypeAlias = Annotated[list[str] | None, typer.Option(help="Trust the module classes of this package.")]
Trust: TypeAlias = Annotated[bool, typer.Option(help="Load the file even if that can run code.")]
Explained: TypeAlias = Annotated[list[str] | None, typer.Option(help="Explain only these inputs.")]
Dynamic: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(help="INPUT:AXIS, an axis that is free like the batch: input_ids:1, x:2; may be repeated."),
]
ExplainedOutput: TypeAlias = Annotated[
    str, typer.Option(help="Position, or name, of the output that is explained: 1, logits.")
]
At: TypeAlias = Annotated[str | None, typer.Option(help="Relevance of the output of this layer, not of the input.")]
Taps: TypeAlias = Annotated[
    list[str] | None, typer.Option("--tap", help="Also relevance of the output of this layer; may be repeated.")
]
Start: TypeAlias = Annotated[
    str | None, typer.Option(help="Relevance starts at the output of this layer: the input `target` is that.")
]
Masks: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--mask", help="An input (batch, channels) masks what passes this layer; may be repeated."),
]
ExcludeParallel: TypeAlias = Annotated[
    bool, typer.Option("--exclude-parallel", help="Cut what leads around the masked layers (residual connections).")
]
Reduce: TypeAlias = Annotated[
    str | None, typer.Option(help="One number for all channels: sum, abs (sum of magnitudes) or max (of magnitudes).")
]
OutputDtype: TypeAlias = Annotated[str | None, typer.Option(help="float16: relevance in half precision.")]
Pair: TypeAlias = Annotated[
    bool, typer.Option("--pair", help="Also write NAME.predict.onnx, the prediction alone, over the same weights.")
]
Absorbed: TypeAlias = Annotated[bool, typer.Option(help="Also output what biases and stabilisers absorb.")]
Roots: TypeAlias = Annotated[bool, typer.Option(help="Also output the report on learned roots.")]
ForwardDerivative: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--forward-derivative",
        help="Gradients of a model with custom autograd functions or hooks are those of its forward.",
    ),
]
ClassNames: TypeAlias = Annotated[Path | None, typer.Option(help="A text file, one class name a line.")]
Resize: TypeAlias = Annotated[int | None, typer.Option(help="Preprocessing: shorter side in pixels.")]
Crop: TypeAlias = Annotated[int | None, typer.Option(help="Preprocessing: side of the centre crop.")]
Mean: TypeAlias = Annotated[
    str | None, typer.Option(help="Preprocessing: a number per channel, in the units of pixels / --scale.")
]
Std: TypeAlias = Annotated[str | None, typer.Option(help="Preprocessing: a number per channel, in the same units.")]
Interpolation: TypeAlias = Annotated[str | None, typer.Option(help="Preprocessing: bilinear (default) or bicubic.")]
Channels: TypeAlias = Annotated[str | None, typer.Option(help="Preprocessing: RGB (default) or BGR.")]
Scale: TypeAlias = Annotated[float | None, typer.Option(help="Preprocessing: divides pixel values; default 255.")]


@dataclass(frozen=True)
class Pictures:
    """How photographs become inputs; see `relcompile.cli.parsing.preprocessing`."""

    resize: Resize = None
    crop: Crop = None
    mean: Mean = None
    std: Std = None
    interpolation: Interpolation = None
    channels: Channels = None
    scale: Scale = None


@dataclass(frozen=True)
class Reading:
    """How a model file is read, and what it takes."""

    inputs: Inputs = None
    arch: Arch = None
    allow: Allow = None
    trust_model_file: Trust = False
