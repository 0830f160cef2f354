"""`relcompile MODEL [options]` compiles; `calibrate`, `explain`, `inspect` and `rules` are sub-commands.

Bad input ends in one message on stderr and exit code 2; an error of relcompile itself in one and exit code 1.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from passes.errors import PassError
from relcompile.cli import options, views
from relcompile.cli.calibrate_options import calibrate
from relcompile.cli.orderly import orderly
from relcompile.errors import InputSpecError, RelcompileError
from relcompile.files import plain_name

_COMPILE = "compile"
_TRACEBACK = "RELCOMPILE_TRACEBACK"
_REPORT = f"please report this, with what {_TRACEBACK}=1 prints in its place"


class _CompileByDefault(TyperGroup):
    """A first argument that is not a sub-command is a model file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = args and (args[0] in self.commands or args[0] in ("--help", "--version"))
        return super().parse_args(ctx, args if named or not args else [_COMPILE, *args])


app = typer.Typer(
    cls=_CompileByDefault,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A compiler for explanations: `relcompile MODEL --rule z+` writes one ONNX graph that computes the "
    "prediction and its relevance map.",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: one message; exit code 2 for what is the user's to mend, 1 for what is not."""
    try:
        with orderly():
            app(arguments)
    except (RelcompileError, PassError) as error:
        views.error(str(error))
        sys.exit(2)
    except Exception as error:
        if os.environ.get(_TRACEBACK):
            raise
        views.error(f"relcompile failed, and should not have: {type(error).__name__}: {error}\n  {_REPORT}")
        sys.exit(1)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"relcompile {installed('relcompile')}")
        raise typer.Exit


@app.command(_COMPILE)
def compile_(
    model: options.Model,
    rule: options.Rule = "z+",
    layer: options.Layers = None,
    bounds: options.Bounds = None,
    calibration: options.CalibrationFile = None,
    out: options.Output = None,
    inputs: options.Inputs = None,
    target: options.Target = "index",
    reference: options.Reference = None,
    arch: options.Arch = None,
    allow: options.Allow = None,
    trust_model_file: options.Trust = False,
    explain: options.Explained = None,
    explained_output: options.ExplainedOutput = 0,
    at: options.At = None,
    absorbed: options.Absorbed = False,
    roots: options.Roots = False,
    class_names: options.ClassNames = None,
    resize: options.Resize = None,
    crop: options.Crop = None,
    mean: options.Mean = None,
    std: options.Std = None,
    interpolation: options.Interpolation = None,
    channels: options.Channels = None,
    scale: options.Scale = None,
) -> None:
    """Compile a trained model and a rule into one explainer file."""
    from relcompile.cli import compile_command, parsing
    from relcompile.question.references import parse_reference, reference_file

    preprocessing = parsing.preprocessing(resize, crop, mean, std, interpolation, channels, scale)
    compile_command.compile_file(
        compile_command.CompileRequest(
            model=model,
            rule=rule,
            layers=tuple(layer or ()),
            bounds=parsing.bounds(bounds),
            calibration=calibration,
            output=out or default_output(model, rule, *(layer or ()), None if target == "index" else target, at),
            inputs=tuple(inputs or ()),
            target=target,
            reference=None if reference is None else parse_reference(reference),
            reference_file=reference_file(reference),
            arch=arch,
            allow=tuple(allow or ()),
            trust=trust_model_file,
            explain=tuple(explain) if explain else None,
            explained_output=explained_output,
            at=at,
            absorbed=absorbed,
            roots=roots,
            class_names=class_names,
            preprocessing=preprocessing,
        )
    )


app.command("calibrate")(calibrate)


@app.command("explain")
def explain_(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs.")],
    target: Annotated[int | None, typer.Option("--target", "-t", help="A class; default: the best one.")] = None,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the heatmaps.")] = Path(),
    top: Annotated[int, typer.Option(help="How many classes to print.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Explain photographs: a heatmap (PHOTO.RULE.png) and the arrays (PHOTO.RULE.npz) of each."""
    from relcompile.cli.explain_command import explain_images

    if device not in ("auto", "cpu", "cuda"):
        raise InputSpecError(f"device {device!r} must be auto, cpu or cuda")
    explain_images(explainer, images, target=target, folder=out, top=top, device=device)


@app.command()
def inspect(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    roots: Annotated[
        Path | None, typer.Option(help="A photograph, or an .npz of the inputs: report on its learned roots.")
    ] = None,
    target: Annotated[int | None, typer.Option("--target", "-t", help="A class; default: the best one.")] = None,
) -> None:
    """What an explainer file holds: inputs, outputs, target, and the rule of every layer."""
    from relcompile.cli.inspect_command import report_roots
    from relcompile.runtime.production import load

    production = load(explainer, device="cpu")
    if roots is not None:
        return report_roots(production, roots, target)
    views.metadata(production.metadata)
    return views.layers(production.metadata.layers)


@app.command()
def rules(
    operators: Annotated[bool, typer.Option("--operators", help="List the supported operators instead.")] = False,
    layer: Annotated[bool, typer.Option("--layer", help="List the rules of single layers, for --layer.")] = False,
) -> None:
    """List every rule with its equation, what it conserves and its source."""
    from relcompile.methods import catalogue

    if operators:
        return views.operators(catalogue.operators())
    return views.rules(catalogue.layer_rules() if layer else catalogue.rules())


def default_output(model: Path, rule: str, *further: str | None) -> Path:
    """MODEL.RULE.onnx beside the model; what else makes the explainer another one follows the rule."""
    names = [rule.removesuffix(".toml").rpartition("/")[2], *filter(None, further)]
    return model.with_name(".".join([model.stem, *(plain_name(name.replace("=", "")) for name in names), "onnx"]))


if __name__ == "__main__":
    main()
