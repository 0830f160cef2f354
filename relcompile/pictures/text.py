"""Relevance per token as coloured text: runs of characters with a value, and a page of HTML."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final, NamedTuple

from relcompile.files.text import printable
from relcompile.pictures.tokens import Piece

_FOR, _AGAINST = (178, 24, 43), (33, 102, 172)  # the ends of RdBu_r
_STRONGEST: Final = 0.8  # black text stays readable on the darkest colour


class Run(NamedTuple):
    """Some characters, and their relevance: None for what no token stands for. `name`: that of a token without any."""

    text: str
    value: float | None
    token: str = ""
    name: bool = False


@dataclass(frozen=True)
class ColouredText:
    """A text with its relevance.

    Attributes:
        title: what was explained.
        text: the text.
        pieces: its tokens.
        relevance: of every token, in the units of the explained output.
        note: what else there is to say.
    """

    title: str
    text: str
    pieces: tuple[Piece, ...]
    relevance: tuple[float, ...]
    note: str = ""

    @property
    def limit(self) -> float:
        """The largest |relevance| of a token: where the colours end."""
        return max(map(abs, self.relevance), default=0.0) or 1.0

    def runs(self) -> Iterator[Run]:
        """The whole text in order; tokens that stand for no characters by their names."""
        done = 0
        for piece, value in zip(self.pieces, self.relevance, strict=True):
            start = max(piece.start, done)
            if piece.end > done and piece.start < piece.end:
                yield from [Run(self.text[done:start], None)] if start > done else []
                yield Run(self.text[start : piece.end], value, piece.token)
                done = piece.end
            else:
                yield Run(piece.token, value, piece.token, name=True)
        if done < len(self.text):
            yield Run(self.text[done:], None)

    def colour(self, value: float) -> tuple[int, int, int]:
        """On white: red for what speaks for the explained output, blue for what speaks against it."""
        depth = _STRONGEST * abs(value) / self.limit
        red, green, blue = (round(255 + depth * (end - 255)) for end in (_FOR if value > 0 else _AGAINST))
        return red, green, blue


def page(title: str, texts: Sequence[ColouredText]) -> str:
    """A page of HTML that needs nothing else: one paragraph a text, with the number of each token in its tooltip."""
    return _PAGE.format(title=escape(printable(title)), body="\n".join(map(_paragraph, texts)))


def _paragraph(text: ColouredText) -> str:
    words = "".join(_span(text, run) for run in text.runs())
    note = f"Colours end at ±{text.limit:.3g}. {text.note}".strip()
    return f"<h2>{escape(printable(text.title))}</h2>\n<p>{words}</p>\n<small>{escape(printable(note))}</small>"


def _span(text: ColouredText, run: Run) -> str:
    shown = escape("".join(map(_printable_but_lines, run.text)))
    if run.value is None:
        return shown
    kinds = " ".join(kind for kind, is_so in (("against", run.value < 0), ("name", run.name)) if is_so)
    colour = "#{:02x}{:02x}{:02x}".format(*text.colour(run.value))
    label = escape(f"{printable(run.token)} {run.value:+.3g}")
    return f'<span class="{kinds}" style="background:{colour}" title="{label}">{shown}</span>'


def _printable_but_lines(sign: str) -> str:
    return sign if sign == "\n" else printable(sign)


_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ font: 1.1rem/1.9 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem;
       color: #111; background: #fff }}
h1 {{ font-size: 1.2rem }}
h2 {{ font-size: 1rem; margin: 2rem 0 0 }}
p {{ margin: .4rem 0; white-space: pre-wrap }}
span {{ padding: .15em 0; border-radius: .15em }}
.name {{ font-size: .75em; margin: 0 .3em }}
.against {{ text-decoration: underline dotted }}
small {{ color: #555 }}
</style>
</head>
<body>
<h1>{title}</h1>
<small>Red speaks for the explained output, blue with dots against it, white is nothing.
Point at a word for its number.</small>
{body}
</body>
</html>
"""
