"""One pass over photographs with an explainer that reads a layer; interrupted runs go on to the same result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from relcompile.calibration.data import ImageFolder
from relcompile.calibration.state import StateFile
from relcompile.concepts.maximisation import Concepts, Maxima, channel_relevance
from relcompile.errors import ExplainerFileError, InputSpecError
from relcompile.runtime.production import ProductionExplainer

_SAVE_EVERY: Final = 30.0  # seconds between two saved states


def facts_of(explainer: ProductionExplainer, data: ImageFolder, count: int, batch: int) -> dict[str, object]:
    """What concepts are of; the checksum of the data takes as long as reading all of it."""
    metadata = explainer.metadata
    return {
        "weights_sha256": metadata.weights_sha256,
        "layer": metadata.at,
        "rule": " ".join((metadata.rule, *metadata.layer_rules)),
        "target": ", ".join(metadata.target.description),
        "data": data.fingerprint,
        "count": count,
        "batch": batch,
    }


def learn(
    explainer: ProductionExplainer,
    data: ImageFolder,
    facts: Mapping[str, object],
    state: StateFile,
    tell: Callable[[int], None],
    start: tuple[Maxima | None, int] = (None, 0),
) -> Concepts:
    """The samples in which every channel is most relevant.

    Args:
        explainer: gives relevance of a layer (N, C, ...) and chooses its own target, one a sample.
        data: the photographs.
        facts: what `facts_of` says of all of these.
        state: where what was found so far is kept.
        tell: told how many samples are done.
        start: what was found in how many samples already.

    Raises:
        InputSpecError: a photograph cannot be read, or its relevance is not finite.
        ExplainerFileError: the explainer does not choose its target.
    """
    found, done = start
    count, batch, saved = _number(facts["count"]), _number(facts["batch"]), time.monotonic()
    for first in range(done, data.count, batch):
        explanation = explainer.explain(*(value.numpy() for value in data.batch(first, first + batch).values()))
        if explanation.target is None or explanation.target.ndim != 1:
            raise ExplainerFileError(
                "concepts want an explainer with one target for every photograph, of its own choice"
            )
        if not explanation.finite.all():
            raise InputSpecError(f"{data.files[first + int(explanation.finite.argmin())]}: its relevance is not finite")
        r = channel_relevance(explanation.relevance)
        found = (found or Maxima.none(r.shape[1], count)).with_batch(r, first, explanation.target.astype(np.int64))
        tell(first + len(r))
        if time.monotonic() - saved > _SAVE_EVERY:
            state.write(found.tensors, facts, first + len(r))
            saved = time.monotonic()
    assert found is not None, "a folder has photographs"
    return Concepts(found, facts, data.count)


def resumed(state: StateFile, facts: Mapping[str, object], data: ImageFolder) -> tuple[Maxima, int]:
    """What an interrupted run found, in how many samples.

    Raises:
        CalibrationError: it was a run on something else.
    """
    tensors, samples = state.read(facts, data.count)
    return Maxima.of_tensors(state.path, tensors, samples), samples


def _number(fact: object) -> int:
    assert isinstance(fact, int)
    return fact
