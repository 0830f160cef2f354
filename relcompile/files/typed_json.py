"""JSON of a file -> frozen dataclasses: typed, bounded, and an error that names the field.

Only the standard library: the runtime reads explainers with it.
"""

import base64
import dataclasses
import functools
import json
import math
import operator
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from relcompile.errors import ExplainerFileError, MetadataError

_LONGEST_JSON = 2**26  # characters
_LONGEST_TEXT = 10_000  # characters of one text in it
_LONGEST_FILE = 2**20  # characters of one small file in it, in base64
_MOST_ENTRIES = 1_000_000  # of one list in it
_LARGEST_INTEGER = 2**63 - 1

_hints = functools.cache(get_type_hints)
_Record = TypeVar("_Record")


def parse_json(text: str, what: str) -> object:
    """The value that a JSON text stands for.

    Raises:
        ExplainerFileError: it is too long, nested too deep, or not JSON.
    """
    if len(text) > _LONGEST_JSON:
        raise ExplainerFileError(f"{what} has {len(text):,} characters, more than the {_LONGEST_JSON:,} that are read")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ExplainerFileError(f"{what} is not JSON: {error}") from error


def decode_record(record: type[_Record], value: object, where: str) -> _Record:
    """The JSON object as the dataclass `record`; entries that it does not know are ignored.

    Args:
        record: its fields are texts, numbers, truth values, bytes (in base64), literals, tuples or dictionaries of one
            type, records, one of them or None, or `object`: any value.
        value: what `parse_json` returned.
        where: the name of the object, for the error.

    Raises:
        ExplainerFileError: a field is missing, of a wrong type, out of bounds, or has an impossible value.
    """
    if not isinstance(value, dict):
        raise ExplainerFileError(f"{where} is {_shown(value)}, but should be a JSON object")
    entries = cast("dict[str, object]", value)
    hints = _hints(record)
    missing = [name for name in hints if name not in entries]
    if missing:
        raise ExplainerFileError(f"{where} lacks {', '.join(missing)}: it is damaged, or another version wrote it")
    fields = {name: _decode(hint, entries[name], f"{where}.{name}") for name, hint in hints.items()}
    try:
        return record(**fields)
    except MetadataError as error:
        raise ExplainerFileError(f"{where}: {error}") from error


def _decode(annotation: Any, value: object, where: str) -> object:
    """The JSON value as the annotated type; `where` is the field's path, for the error."""
    origin, options = get_origin(annotation), get_args(annotation)
    if annotation is bytes and isinstance(value, str):
        return _unpacked(value, where)
    _require_bounded(value, where)
    if annotation is object:
        return value
    if dataclasses.is_dataclass(annotation):
        return decode_record(annotation, value, where)
    if origin is tuple and isinstance(value, list):
        items = cast("list[object]", value)
        return tuple(_decode(options[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if origin is dict and isinstance(value, dict):
        entries = cast("dict[str, object]", value)
        return {_decode(str, key, where): _decode(options[1], item, f"{where}.{key}") for key, item in entries.items()}
    if origin is UnionType and NoneType in options:
        rest = (option for option in options if option is not NoneType)
        return None if value is None else _decode(functools.reduce(operator.or_, rest), value, where)
    if origin is UnionType and type(value) in options:
        return value
    if origin is Literal and isinstance(value, str) and value in options:
        return value
    if annotation is float and type(value) in (int, float) and math.isfinite(cast("float", value)):
        return float(cast("float", value))
    if type(value) is annotation and annotation is not float:
        return value
    expected = str(annotation) if origin else getattr(annotation, "__name__", annotation)
    raise ExplainerFileError(f"{where} is {_shown(value)}, but should be {expected}")


def _unpacked(value: str, where: str) -> bytes:
    """The bytes that stand in base64."""
    if len(value) > _LONGEST_FILE:
        raise ExplainerFileError(f"{where} has {len(value):,} characters, more than {_LONGEST_FILE:,}")
    try:
        return base64.b64decode(value, validate=True)
    except ValueError as error:
        raise ExplainerFileError(f"{where} is not base64: {error}") from error


def _require_bounded(value: object, where: str) -> None:
    """Raise ExplainerFileError for a number, a text or a list that no explainer has."""
    if type(value) is int and abs(value) > _LARGEST_INTEGER:
        raise ExplainerFileError(f"{where} is a number of {value.bit_length()} bits, but should have 64 at most")
    if isinstance(value, str) and len(value) > _LONGEST_TEXT:
        raise ExplainerFileError(f"{where} has {len(value):,} characters, more than {_LONGEST_TEXT:,}")
    if isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
        raise ExplainerFileError(f"{where} is {_shown(value)}, which is not Unicode")
    if isinstance(value, list) and len(cast("list[object]", value)) > _MOST_ENTRIES:
        raise ExplainerFileError(f"{where} has more than {_MOST_ENTRIES:,} entries")


def _shown(value: object) -> str:
    """The beginning of a JSON value, for an error; it may be nested too deep to be written again."""
    try:
        return json.dumps(value)[:80]
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
