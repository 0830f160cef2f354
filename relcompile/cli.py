"""`relcompile MODEL [options]` compiles; `explain`, `inspect` and `rules` are sub-commands.

Bad input ends in one message on stderr and exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from relcompile import views
from relcompile.errors import InputSpecError, RelcompileError

_COMPILE = "compile"


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


def main() -> None:
    """The console script: errors that relcompile raises on purpose become one message and exit code 2."""
    try:
        app()
    except RelcompileError as error:
        _fail(str(error))
    except Exception as error:
        if type(error).__module__ != "passes.errors":
            raise
        _fail(str(error))


def _fail(message: str) -> None:
    views.error(message)
    sys.exit(2)


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
    model: Annotated[Path, typer.Argument(help="A pickled module, a state dict or safetensors (with --arch).")],
    rule: Annotated[
        str, typer.Option("--rule", "-r", help="A name (see `relcompile rules`) or a composite in a .toml file.")
    ] = "z+",
    layer: Annotated[
        list[str] | None, typer.Option("--layer", help="NAME-GLOB=RULE, as in 'features.0=flat'; may be repeated.")
    ] = None,
    bounds: Annotated[str | None, typer.Option(help="LOW,HIGH of the input, for rules that need them.")] = None,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="An .onnx or .pt2 file. Default: MODEL.RULE.onnx")
    ] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="[name=]1x3x224x224[:dtype], once per input.")
    ] = None,
    target: Annotated[
        str, typer.Option("--target", "-t", help="index (a runtime input), argmax, seed, or a class number.")
    ] = "index",
    arch: Annotated[str | None, typer.Option(help="module:callable that builds the model of a state dict.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="Trust the module classes of this package.")] = None,
    trust_model_file: Annotated[bool, typer.Option(help="Load the file even if that can run code.")] = False,
    explain: Annotated[list[str] | None, typer.Option(help="Explain only these inputs.")] = None,
    explained_output: Annotated[int, typer.Option(help="Position of the output that is explained.")] = 0,
    absorbed: Annotated[bool, typer.Option(help="Also output what biases and stabilisers absorb.")] = False,
    roots: Annotated[bool, typer.Option(help="Also output the report on learned roots.")] = False,
    class_names: Annotated[Path | None, typer.Option(help="A text file, one class name a line.")] = None,
    resize: Annotated[int | None, typer.Option(help="Preprocessing: shorter side in pixels.")] = None,
    crop: Annotated[int | None, typer.Option(help="Preprocessing: side of the centre crop.")] = None,
    mean: Annotated[str | None, typer.Option(help="Preprocessing: three numbers, after division by 255.")] = None,
    std: Annotated[str | None, typer.Option(help="Preprocessing: three numbers.")] = None,
    interpolation: Annotated[str, typer.Option(help="Preprocessing: bilinear or bicubic.")] = "bilinear",
    channels: Annotated[str, typer.Option(help="Preprocessing: RGB or BGR.")] = "RGB",
    scale: Annotated[float, typer.Option(help="Preprocessing: pixel values are divided by this.")] = 255.0,
) -> None:
    """Compile a trained model and a rule into one explainer file."""
    from relcompile import commands

    preprocessing = commands.preprocessing(resize, crop, mean, std, interpolation, channels, scale)
    commands.compile_file(
        commands.CompileRequest(
            model=model,
            rule=rule,
            layers=tuple(layer or ()),
            bounds=commands.bounds(bounds),
            output=out or default_output(model, rule),
            inputs=tuple(inputs or ()),
            target=target,
            arch=arch,
            allow=tuple(allow or ()),
            trust=trust_model_file,
            explain=tuple(explain) if explain else None,
            explained_output=explained_output,
            absorbed=absorbed,
            roots=roots,
            class_names=class_names,
            preprocessing=preprocessing,
        )
    )


@app.command("explain")
def explain_(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs.")],
    target: Annotated[int | None, typer.Option("--target", "-t", help="A class; default: the best one.")] = None,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the heatmaps.")] = Path(),
    top: Annotated[int, typer.Option(help="How many classes to print.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Explain photographs: a heatmap (PNG) and the arrays (npz) of each."""
    from relcompile.explain_images import explain_images

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
    from relcompile.inspect_roots import report_roots
    from relcompile.runtime import load

    production = load(explainer, device="cpu")
    if roots is not None:
        return report_roots(production, roots, target)
    views.metadata(production.metadata)
    return views.layers(production.metadata.layers)


@app.command()
def rules(
    operators: Annotated[bool, typer.Option("--operators", help="List the supported operators instead.")] = False,
) -> None:
    """List every rule with its equation, what it conserves and its source."""
    from relcompile import catalogue

    views.operators(catalogue.operators()) if operators else views.rules(catalogue.rules())


def default_output(model: Path, rule: str) -> Path:
    """MODEL.RULE.onnx beside the model, with characters that shells expand left out."""
    name = rule.removesuffix(".toml").rpartition("/")[2].replace("*", "x").replace("=", "")
    return model.with_name(f"{model.stem}.{name}.onnx")


if __name__ == "__main__":
    main()
