"""The command line of `relcompile calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


def calibrate(
    model: Annotated[Path, typer.Argument(help="As for compiling.")],
    data: Annotated[Path, typer.Argument(help="A folder of photographs, or a .npy or .npz file of inputs.")],
    rule: Annotated[str, typer.Option("--rule", "-r", help="The rule that needs it.")] = "patternattribution",
    out: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("patterns.safetensors"),
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="As for compiling.")] = None,
    estimator: Annotated[str, typer.Option(help="relu (two components) or linear.")] = "relu",
    batch: Annotated[int, typer.Option(help="Samples at a time.")] = 32,
    samples: Annotated[int | None, typer.Option(help="At most so many of the samples, evenly spaced.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    arch: Annotated[str | None, typer.Option(help="module:callable that builds the model of a state dict.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="Trust the module classes of this package.")] = None,
    trust_model_file: Annotated[bool, typer.Option(help="Load the file even if that can run code.")] = False,
    resize: Annotated[int | None, typer.Option(help="Preprocessing: shorter side in pixels.")] = None,
    crop: Annotated[int | None, typer.Option(help="Preprocessing: side of the centre crop.")] = None,
    mean: Annotated[str | None, typer.Option(help="Preprocessing: three numbers, after division by 255.")] = None,
    std: Annotated[str | None, typer.Option(help="Preprocessing: three numbers.")] = None,
    interpolation: Annotated[str, typer.Option(help="Preprocessing: bilinear or bicubic.")] = "bilinear",
    channels: Annotated[str, typer.Option(help="Preprocessing: RGB or BGR.")] = "RGB",
    scale: Annotated[float, typer.Option(help="Preprocessing: pixel values are divided by this.")] = 255.0,
) -> None:
    """Learn from data what PatternNet and PatternAttribution need: one pattern per affine layer."""
    from relcompile import commands
    from relcompile.calibration.command import CalibrateRequest, calibrate_file

    chosen: Any = estimator
    calibrate_file(
        CalibrateRequest(
            model=model,
            data=data,
            rule=rule,
            output=out,
            inputs=tuple(inputs or ()),
            estimator=chosen,
            batch=batch,
            samples=samples,
            resume=resume,
            arch=arch,
            allow=tuple(allow or ()),
            trust=trust_model_file,
            preprocessing=commands.preprocessing(resize, crop, mean, std, interpolation, channels, scale),
        )
    )
