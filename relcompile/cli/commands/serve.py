"""`relcompile serve`: explainers over HTTP. Needs neither torch nor onnx."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from relcompile.cli import views
from relcompile.errors import InputSpecError
from relcompile.runtime.options import Device
from relcompile.runtime.production import load


def serve(
    explainers: Annotated[list[str], typer.Argument(help="Compiled .onnx files, each perhaps as NAME=FILE.")],
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0: every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.", min=0, max=65535)] = 8000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of one explainer; default: all cores.")] = None,
    rows: Annotated[int, typer.Option(help="Samples of one request, and of requests run together.", min=1)] = 32,
    waiting: Annotated[int, typer.Option(help="Requests that may wait for one explainer; others: 429.", min=1)] = 64,
    connections: Annotated[int, typer.Option(help="At a time; others: 503.", min=1)] = 256,
    max_body: Annotated[int, typer.Option(help="MiB of one request; larger: 413.", min=1)] = 64,
    timeout: Annotated[float, typer.Option(help="Seconds for a request to arrive (408), and its answer (504).")] = 30.0,
) -> None:
    """Serve explainers over HTTP by the Open Inference Protocol, version 2, as Triton and KServe do.

    One client works with all of them. Metrics for Prometheus are at /metrics.
    """
    from relcompile.serving.application import Limits
    from relcompile.serving.model import Model
    from relcompile.serving.server import Address, serve

    if not 0 < timeout < 86400:
        raise InputSpecError(f"--timeout {timeout} must be above 0, and below a day")
    files = named(explainers)
    with Address(host, port).open() as listening:
        loaded = {name: load(path, device=cast("Device", device), threads=threads) for name, path in files.items()}
        models = {name: Model.of(explainer, waiting, rows) for name, explainer in loaded.items()}
        where = f"[{host}]" if ":" in host else host
        views.note(f"serving {', '.join(files)} at http://{where}:{listening.getsockname()[1]}")
        serve(models, Limits(max_body * 2**20, timeout), listening, connections)


def named(given: Sequence[str]) -> dict[str, Path]:
    """The files by the names of their models: NAME=FILE, or a file's name without its ending.

    Raises:
        InputSpecError: two have one name, or a name cannot be part of an address.
    """
    files = dict[str, Path]()
    for each in given:
        name, sign, path = ("", "", each) if os.path.lexists(each) else each.partition("=")
        file = Path(path if sign else each)
        name = name if sign else file.stem
        if not name or "/" in name or not name.isprintable():
            raise InputSpecError(f"{name!r} cannot be the name of a model; give another one: NAME={file}")
        if name in files:
            raise InputSpecError(f"{files[name]} and {file} are both called {name}; give one as NAME={file}")
        files[name] = file
    return files
