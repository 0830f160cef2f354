"""`relcompile MODEL [options]` compiles; what else there is are sub-commands, a file each.

Bad input ends in one message on stderr and exit code 2; an error of relcompile itself in one and exit code 1.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from passes.errors import InternalError, PassError
from relcompile.cli import views
from relcompile.cli.commands.batch import batch
from relcompile.cli.commands.calibrate import calibrate
from relcompile.cli.commands.compare import compare
from relcompile.cli.commands.compile import compile_
from relcompile.cli.commands.concepts import concepts
from relcompile.cli.commands.demo import demo
from relcompile.cli.commands.doctor import doctor
from relcompile.cli.commands.evaluate import evaluate
from relcompile.cli.commands.explain import explain
from relcompile.cli.commands.export import export
from relcompile.cli.commands.inspect import inspect
from relcompile.cli.commands.report import report
from relcompile.cli.commands.rules import rules
from relcompile.cli.commands.serve import serve
from relcompile.cli.confined import Console, Place, start
from relcompile.cli.groups import flat
from relcompile.cli.orderly import orderly
from relcompile.errors import InputSpecError, RelcompileError
from relcompile.runtime.extras import way_out

_COMPILE = "compile"
_NEAR = 0.7  # of 1: letters in common of a mistyped command
_TRACEBACK = "RELCOMPILE_TRACEBACK"
_REPORT = f"please report this, with what {_TRACEBACK}=1 prints in its place"


class _CompileByDefault(TyperGroup):
    """A first argument that is not a sub-command is a model file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _refuse_mistyped(args, self.commands)
        named = args and (args[0] in self.commands or args[0] in ("--help", "--version"))
        return super().parse_args(ctx, args if named or not args else [_COMPILE, *args])


class _Once(TyperCommand):
    """Every word says something, and an option that has one value is given once: of two, one would win nothing."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "" in args:  # as a path, the working directory
            raise InputSpecError("one of the arguments is empty: is a variable of the shell not set?")
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        for option, count in Counter(given).items():
            if count > 1 and isinstance(option, TyperOption) and not (option.multiple or option.is_flag):
                raise InputSpecError(f"{option.opts[0]} is given {count} times, and has one value")
        return super().parse_args(ctx, args)


def _refuse_mistyped(args: Sequence[str], commands: Iterable[str]) -> None:
    """A word that is no file, and nearly a sub-command, is one with a slip of the finger."""
    near = get_close_matches(args[0], list(commands), n=1, cutoff=_NEAR) if args else []
    if near and args[0] not in commands and not os.path.lexists(args[0]):
        raise InputSpecError(f"{args[0]!r} is neither a sub-command nor a file; did you mean `relcompile {near[0]}`?")


app = typer.Typer(
    cls=_CompileByDefault,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="A compiler for explanations: `relcompile MODEL --rule z+` writes one ONNX graph that computes the "
    "prediction and its relevance map.",
)


def console() -> None:
    """The console script: what a model file has a say in is done by a child process with few rights."""
    main(sys.argv[1:], Console(sys.argv[1:]))


def in_child(job: dict[str, Any], unlimited: Sequence[str]) -> None:
    """The same command line in that child process; `unlimited`: the rights that it could not give up, in words."""
    place = start(job)
    if unlimited:
        views.note(f"this system sets no limits to {', '.join(unlimited)} while a model file is worked on")
    main(job["arguments"], place)


def main(arguments: Sequence[str] | None = None, place: Place | None = None) -> None:
    """One command line, with one message at most; exit code 2 for what is the user's to mend, 1 for what is not.

    Args:
        arguments: those of the process, if none are given.
        place: where the work on a model file is done; by default here.
    """
    try:
        with orderly():
            app(arguments, obj=place or Place())
    except Exception as error:
        told = _for_the_user(error)
        if told is not None:
            views.error(told)
            sys.exit(2)
        if os.environ.get(_TRACEBACK):
            raise
        views.error(f"relcompile failed, and should not have: {type(error).__name__}: {error}\n  {_REPORT}")
        sys.exit(1)


def _for_the_user(error: Exception) -> str | None:
    """The message, if it is the user's to mend."""
    if isinstance(error, ModuleNotFoundError):
        return way_out(error)
    users = isinstance(error, RelcompileError | PassError) and not isinstance(error, InternalError)
    return str(error) if users else None


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"relcompile {installed('relcompile')}")
        raise typer.Exit


app.command(_COMPILE, cls=_Once)(flat(compile_))
for _command in (
    batch,
    calibrate,
    compare,
    concepts,
    demo,
    doctor,
    evaluate,
    explain,
    export,
    inspect,
    report,
    rules,
    serve,
):
    app.command(cls=_Once)(flat(_command))


if __name__ == "__main__":
    console()
