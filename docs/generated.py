"""What the site says that the code knows better: the rules, the operators, the options, the changes.

A page asks for a part with a line `<!-- generated: rules -->`; `mkdocs` puts it in when it builds the site. Nothing
generated is stored, so nothing of it can be out of date.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import typer
from mkdocs.structure.files import File

from relcompile.cli.main import app
from relcompile.methods import catalogue
from relcompile.methods.catalogue import Description
from relcompile.methods.coverage import FATES, coverage
from relcompile.methods.preset import Preset
from relcompile.methods.presets import PRESETS, RULES

ROOT: Final = Path(__file__).resolve().parent.parent
PICTURES: Final = ROOT / "docs" / "images" / "rules"
DEMO: Final = ROOT / "build" / "demo"
HEADINGS: Final = {"Use": "When", "Conserves": "Conserves", "Needs": "Needs", "Source": "Source"}


def on_files(files: Any, config: Any) -> Any:
    """Pages that are files of the repository elsewhere, and the list of decisions."""
    files.append(File.generated(config, "changelog.md", content=(ROOT / "CHANGELOG.md").read_text(encoding="utf-8")))
    files.append(File.generated(config, "decisions/index.md", content=decisions()))
    return files


def on_post_build(config: Any, **_: Any) -> None:
    """The live example lies beside the pages, if it has been made."""
    if (DEMO / "index.html").is_file():
        shutil.copytree(DEMO, Path(config["site_dir"], "demo"), dirs_exist_ok=True)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with what it asked for."""
    return re.sub(r"^<!-- generated: ([a-z -]+) -->$", lambda found: PARTS[found[1]](), markdown, flags=re.MULTILINE)


def rules_table() -> str:
    """One row a rule, linked to its section."""
    rows = ["| `--rule` | what it is | conserves |", "|---|---|---|"]
    for same in _alike():
        names = ", ".join(f"[`{rule.name}`](#{_anchor(same[0].name)})" for rule in same)
        rows.append(f"| {names} | {_cell(same[0].summary)} | {_cell(dict(same[0].facts).get('Conserves', ''))} |")
    return "\n".join(rows)


def rules() -> str:
    """One section a rule; names that differ in a number share one."""
    return "\n\n".join(_section(same) for same in _alike())


def layer_rules() -> str:
    """The rules that `--layer` takes, as a table."""
    rows = ["| `--layer NAME=` | parameters | what it is | conserves |", "|---|---|---|---|"]
    for rule in catalogue.layer_rules():
        facts = dict(rule.facts)
        parameters = _parameters(RULES[rule.name])
        rows.append(f"| `{rule.name}` | {parameters} | {_cell(rule.summary)} | {_cell(facts.get('Conserves', ''))} |")
    return "\n".join(rows)


def operators() -> str:
    """One row a kind of operator."""
    rows = [f"| {kind} | {', '.join(f'`{name}`' for name in names)} |" for kind, names in catalogue.operators().items()]
    return "\n".join(["| kind | operators |", "|---|---|", *rows])


def spellings() -> str:
    """What becomes of torch's own pointwise, reduction and view operators."""
    rows = [f"| {FATES[fate]} | {', '.join(f'`{name}`' for name in names)} |" for fate, names in coverage().items()]
    return "\n".join(["| | operators |", "|---|---|", *rows])


def demo() -> str:
    """The live example; where it has not been made, how to make it."""
    if (DEMO / "index.html").is_file():
        return (
            '<p>For instance <a href="demo/chelsea.png" download>this cat</a>: save it, and drop it.</p>\n'
            '<iframe class="demo" src="demo/index.html" title="A network that explains itself"></iframe>'
        )
    return "!!! note\n    The live example is not part of this build; `.ci/site` makes a site that has it."


def options(command: str) -> str:
    """The arguments and options of one command, as its own help has them."""
    group: Any = typer.main.get_command(app)
    rows = ["| option | meaning |", "|---|---|"]
    for parameter in group.commands[command].params:
        if parameter.param_type_name == "argument":
            rows.append(f"| `{parameter.name.upper()}` | {_cell(parameter.help)} |")
            continue
        default = "" if isinstance(parameter.default, bool | None) else f" Default: `{parameter.default}`."
        rows.append(f"| {', '.join(f'`{name}`' for name in parameter.opts)} | {_cell(parameter.help)}{default} |")
    return "\n".join(rows)


def decisions() -> str:
    """The decisions, by their own titles."""
    paths = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    lines = (f"* [{path.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}]({path.name})" for path in paths)
    return "\n".join(["# Decisions", "", "What was decided, why, and what would reopen it.", "", *lines])


def _alike() -> Iterator[list[Description]]:
    """Presets that follow one another and say the same of themselves."""
    for _, same in groupby(catalogue.rules(), key=lambda rule: (rule.summary, rule.facts)):
        yield list(same)


def _section(same: list[Description]) -> str:
    facts = dict(same[0].facts)
    title = ", ".join(f"`{rule.name}`" for rule in same)
    parts = [f"## {title} {{#{_anchor(same[0].name)}}}", same[0].summary]
    parts += [
        f"![Relevance map of {rule.name}](images/rules/{picture_name(rule.name)}.png){{.map}}" for rule in _drawn(same)
    ]
    if "Equation" in facts:
        parts.append(f"```{{ .text .equation }}\n{facts['Equation']}\n```")
    lines = [f"**{heading}:** {facts[key]}" for key, heading in HEADINGS.items() if key in facts]
    parameters = _parameters(PRESETS[same[0].name])
    lines += [f"**Parameters:** {parameters}"] if parameters else []
    return "\n\n".join([*parts, *lines])


def _drawn(same: list[Description]) -> list[Description]:
    """The first of them that the gallery has."""
    return [rule for rule in same if (PICTURES / f"{picture_name(rule.name)}.png").exists()][:1]


def _parameters(preset: Preset[Any]) -> str:
    """What may follow the name, with the defaults."""
    return ", ".join(f"`{name}={default}`" for name, default in preset.parameters.items())


def picture_name(rule: str) -> str:
    """How the file with the map of a rule is called, without its suffix."""
    return _anchor(rule)


def _anchor(name: str) -> str:
    return name.replace("z+", "z-plus").replace("*", "-times-")


def _cell(text: str) -> str:
    return re.sub(r"([|\[])", r"\\\1", text)


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "rules table": rules_table,
    "rules": rules,
    "layer rules": layer_rules,
    "operators": operators,
    "spellings": spellings,
    "demo": demo,
    "options of compile": lambda: options("compile"),
    "options of explain": lambda: options("explain"),
    "options of compare": lambda: options("compare"),
    "options of calibrate": lambda: options("calibrate"),
    "options of evaluate": lambda: options("evaluate"),
    "options of inspect": lambda: options("inspect"),
}
