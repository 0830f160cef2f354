"""The command line of `relcompile calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from relcompile.cli import options


def calibrate(
    model: options.Model,
    data: Annotated[Path, typer.Argument(help="A folder of photographs, or a .npy or .npz file of inputs.")],
    rule: Annotated[str, typer.Option("--rule", "-r", help="The rule that needs it.")] = "patternattribution",
    out: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path("patterns.safetensors"),
    inputs: options.Inputs = None,
    estimator: Annotated[str, typer.Option(help="relu (two components) or linear.")] = "relu",
    batch: Annotated[int, typer.Option(help="Samples at a time.")] = 32,
    samples: Annotated[int | None, typer.Option(help="At most so many of the samples, evenly spaced.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")] = False,
    arch: options.Arch = None,
    allow: options.Allow = None,
    trust_model_file: options.Trust = False,
    resize: options.Resize = None,
    crop: options.Crop = None,
    mean: options.Mean = None,
    std: options.Std = None,
    interpolation: options.Interpolation = None,
    channels: options.Channels = None,
    scale: options.Scale = None,
) -> None:
    """Learn from data what PatternNet and PatternAttribution need: one pattern per affine layer."""
    from relcompile.cli import parsing
    from relcompile.cli.calibrate_command import CalibrateRequest, calibrate_file

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
            preprocessing=parsing.preprocessing(resize, crop, mean, std, interpolation, channels, scale),
        )
    )
