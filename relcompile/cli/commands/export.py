"""`relcompile export`: an explainer in the form that another server wants. Needs neither torch nor onnx."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from relcompile.cli import views
from relcompile.errors import InputSpecError
from relcompile.serving.triton import Deployment, triton_name, write_repository


def export(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    triton: Annotated[Path, typer.Option(help="The model repository of NVIDIA's Triton to write into.")],
    name: Annotated[
        str | None, typer.Option(help="Of the model; default: that of the file, with _ for + and =.")
    ] = None,
    rows: Annotated[int, typer.Option(help="Samples of a batch, at most.", min=1)] = 32,
    delay: Annotated[int, typer.Option(help="Microseconds that a request waits for others.", min=0)] = 0,
    instances: Annotated[int, typer.Option(help="Sessions on each device.", min=1)] = 1,
    gpu: Annotated[bool, typer.Option("--gpu", help="Run on GPUs.")] = False,
    tensorrt: Annotated[bool, typer.Option("--tensorrt", help="Use TensorRT where it can be; with --gpu.")] = False,
) -> None:
    """Write an explainer into a model repository of Triton, with its configuration."""
    called = name or triton_name(explainer.stem)
    if called != triton_name(called) or called.startswith("."):
        raise InputSpecError(
            f"--name {called!r} cannot be the name of a model of Triton; take letters, digits, '.', '_', '-' and '~'"
        )
    written = write_repository(explainer, triton, called, Deployment(rows, delay, instances, gpu, tensorrt))
    views.note(f"wrote {' and '.join(map(str, written))}: tritonserver --model-repository {triton}")
