"""Texts in, tokens out: what a tokenizer file makes of a text is what a token model takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from relcompile.errors import InputSpecError
from relcompile.files.paths import read_text
from relcompile.files.records import InputRecord
from relcompile.metadata import Metadata

Array: TypeAlias = NDArray[Any]
LARGEST_TOKENIZER: Final = 2**26  # bytes
_FILES: Final = ("{stem}.tokenizer.json", "tokenizer.json", "tokenizers.json")


@dataclass(frozen=True)
class Piece:
    """One token of a text.

    Attributes:
        token: as the vocabulary has it, "##ing".
        start: its first character in the text.
        end: behind its last; equal to `start` for a token that stands for none, such as [CLS].
    """

    token: str
    start: int
    end: int


@dataclass(frozen=True)
class Read:
    """A text as the model takes it.

    Attributes:
        text: the text.
        pieces: its tokens, without padding.
        first: position of the first of them along the sequence: after padding, if that stands on the left.
        cut: how many tokens were too many.
    """

    text: str
    pieces: tuple[Piece, ...]
    first: int
    cut: int


def is_token_model(metadata: Metadata) -> bool:
    """All inputs are integers: what is explained is their embedding."""
    return all(record.dtype.startswith(("int", "uint", "bool")) for record in metadata.inputs)


def tokenizer_beside(explainer: Path) -> Path:
    """The tokenizer's file in the folder of an explainer.

    Raises:
        InputSpecError: there is none.
    """
    names = [name.format(stem=explainer.stem) for name in _FILES]
    found = [path for path in map(explainer.with_name, names) if path.is_file()]
    if not found:
        raise InputSpecError(
            f"there is no {' or '.join(names)} beside {explainer}: put its tokenizer there, or name it "
            "with --tokenizer (the JSON file of the library `tokenizers`, as transformers' `save_pretrained` writes it)"
        )
    return found[0]


class Tokenizer:
    """Texts -> the inputs of one explainer.

    Args:
        metadata: what the explainer says of its inputs.
        path: a tokenizer.json of the library `tokenizers`.

    Raises:
        InputSpecError: the file is no tokenizer, or the inputs are not those of a token model.
    """

    def __init__(self, metadata: Metadata, path: Path) -> None:
        from tokenizers import Tokenizer as Library

        content = read_text(path, "the tokenizer", LARGEST_TOKENIZER)
        try:
            self._library: Any = Library.from_str(content)
        except Exception as error:  # the library raises bare exceptions
            raise InputSpecError(f"the tokenizer {path} cannot be read: {error}") from error
        self._padding: dict[str, Any] = self._library.padding or {}
        self._library.no_padding()
        self._library.no_truncation()
        self._records = metadata.inputs
        self._ids = _ids(metadata.inputs)

    def read(self, texts: Sequence[str]) -> tuple[list[Array], list[Read]]:
        """One array (N, T) for every input, and what stands in the rows.

        T is the length that the explainer was compiled for, or that of the longest text if that is free.
        """
        encoded = [self._library.encode(text) for text in texts]
        wanted = self._ids.shape[1]
        length = wanted if isinstance(wanted, int) else max(1, *(len(one.ids) for one in encoded))
        left = self._padding.get("direction") == "left"
        rows = [_row(text, one, length, left) for text, one in zip(texts, encoded, strict=True)]
        ids = np.full((len(texts), length), self._pad, np.int64)
        mask = np.zeros_like(ids)
        for k, (row, one) in enumerate(zip(rows, encoded, strict=True)):
            place = slice(row.first, row.first + len(row.pieces))
            ids[k, place], mask[k, place] = one.ids[: len(row.pieces)], 1
        return [self._filled(record, ids, mask) for record in self._records], rows

    @property
    def _pad(self) -> int:
        known = [self._library.token_to_id(token) for token in ("[PAD]", "<pad>")]
        return next((k for k in (self._padding.get("pad_id"), *known) if k is not None), 0)

    def _filled(self, record: InputRecord, ids: Array, mask: Array) -> Array:
        if record is self._ids:
            values = ids
        elif "mask" in record.name:
            values = mask
        elif "position" in record.name:
            values = np.maximum(mask.cumsum(1) - 1, 0)
        else:  # one sort of text
            values = np.zeros_like(ids)
        return values.astype(record.dtype)


def _row(text: str, encoded: Any, length: int, left: bool) -> Read:
    kept = min(len(encoded.ids), length)
    pieces = tuple(Piece(token, *span) for token, span in zip(encoded.tokens[:kept], encoded.offsets, strict=False))
    return Read(text, pieces, length - kept if left else 0, len(encoded.ids) - kept)


def _ids(records: Sequence[InputRecord]) -> InputRecord:
    """The input that takes tokens: by its name, or as the only one."""
    others = ("mask", "type", "position")
    found = [record for record in records if not any(word in record.name for word in others)]
    if len(found) != 1 or any(len(record.shape) != 2 for record in records):
        shapes = ", ".join(f"{record.name} {list(record.shape)}" for record in records)
        raise InputSpecError(f"texts become tokens (batch, length) in one input; this explainer takes {shapes}")
    return found[0]
