"""Explainer files, and the predictions beside them, from the disk into ONNX Runtime, checked on the way."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from relcompile.errors import ExplainerFileError
from relcompile.files.records import InputRecord
from relcompile.files.seal import PREDICTS_KEY, WEIGHTS_KEY, check_weights_beside
from relcompile.metadata import METADATA_KEY, Metadata
from relcompile.runtime.checks import check_file
from relcompile.runtime.contract import match_session
from relcompile.runtime.graph import Graph
from relcompile.runtime.options import RuntimeOptions
from relcompile.runtime.session import import_onnxruntime, open_session


def open_explainer(path: Path, options: RuntimeOptions) -> tuple[Metadata, Graph, InputRecord | None]:
    """What the file says of itself, its graph, and the input that is the target, if there is one.

    Raises:
        ExplainerFileError, RuntimeUnavailableError: see `relcompile.runtime.production.load`.
    """
    session, properties, further = _opened(path, options)
    try:
        text = properties.get(METADATA_KEY)
        if text is None and PREDICTS_KEY in properties:
            raise ExplainerFileError("it is the prediction alone; give the explainer that lies beside it")
        if text is None:
            raise ExplainerFileError(
                "it is an ONNX file, but not an explainer: relcompile did not write it; compile it: relcompile "
                f"{shlex.quote(str(path))}"
            )
        metadata = Metadata.from_json(text)
        target = match_session(metadata, session)
    except (ExplainerFileError, UnicodeDecodeError) as error:  # ONNX Runtime hands on what is not UTF-8
        raise ExplainerFileError(f"{path}: {error}") from error
    return metadata, Graph(session, tuple(metadata.output_names), *further), target


def open_predictor(path: Path | bytes, options: RuntimeOptions, metadata: Metadata) -> Graph:
    """The prediction alone, NAME.predict.onnx beside NAME.onnx, of the same weights.

    Raises:
        ExplainerFileError: it is not there, damaged, or of another model.
    """
    if isinstance(path, bytes):
        raise ExplainerFileError("an explainer that was loaded from its content has no prediction beside it")
    beside = prediction_beside(path)
    if not beside.exists():
        raise ExplainerFileError(
            f"{beside} is not there, which predicts without explaining: compile with --pair, or "
            "explainer.save(..., pair=True)"
        )
    session, properties, further = _opened(beside, options)
    inputs = {value.name for value in session.get_inputs()}
    outputs = [value.name for value in session.get_outputs()]
    own = inputs <= {record.name for record in metadata.inputs} and outputs == list(metadata.outputs)
    if not own or properties.get(PREDICTS_KEY) != metadata.weights_sha256:
        raise ExplainerFileError(f"{beside} is not the prediction of {path}: compile both at once, with --pair")
    return Graph(session, metadata.outputs, *further)


def prediction_beside(path: Path) -> Path:
    """Where the prediction alone lies, if there is one."""
    return path.with_name(f"{path.stem}.predict.onnx")


def _opened(path: Path, options: RuntimeOptions) -> tuple[Any, dict[str, str], tuple[Any, Path | None]]:
    """A session of the file, checked with its weights; its properties; the options of every run, and the weights."""
    runtime = import_onnxruntime()
    check_file(path)
    session = open_session(runtime, path, options)
    try:
        properties: dict[str, str] = session.get_modelmeta().custom_metadata_map
        weights = check_weights_beside(path, properties.get(WEIGHTS_KEY))
    except (ExplainerFileError, UnicodeDecodeError) as error:  # ONNX Runtime hands on what is not UTF-8
        raise ExplainerFileError(f"{path}: {error}") from error
    return session, properties, (options.of_run(runtime), weights)
