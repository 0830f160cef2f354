"""Weights in a file of their own: what a file cannot hold, or what two files share."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import onnx

from relcompile.files.seal import PREDICTS_KEY, SEAL_KEY, WEIGHTS_KEY
from relcompile.metadata import Metadata

MOST_INSIDE: Final = 2**31 - 2**26  # bytes of weights: the format ends at 2^31, and the graph takes some
_SMALLEST: Final = 1024  # bytes of a tensor that is worth it: runtimes fold what is small and inside
_PAGE: Final = 4096  # tensors begin at multiples of it, so that a runtime can map them


def weights_in(model: onnx.ModelProto) -> int:
    """Bytes of all weights."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def move_out(model: onnx.ModelProto, path: Path) -> None:
    """Before: `model`, to be written to `path`, holds its weights. After: a file beside that does.

    The name of that file holds a checksum of it, so that files of two versions never stand for each other.
    """
    digest, unnamed, place = hashlib.sha256(), path.with_name("weights"), 0
    moved = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= _SMALLEST]
    with unnamed.open("wb") as file:
        for tensor in moved:
            content = b"\0" * (-place % _PAGE) + tensor.raw_data
            file.write(content)
            digest.update(content)
            place += len(content)
            _point(tensor, offset=place - len(tensor.raw_data))
    name = f"{path.stem}.{digest.hexdigest()[:12]}.weights"
    unnamed.replace(path.with_name(name))
    for tensor in moved:
        tensor.external_data.add(key="location", value=name)
    model.metadata_props.add(key=WEIGHTS_KEY, value=f"{digest.hexdigest()} {name}")


def _point(tensor: onnx.TensorProto, offset: int) -> None:
    for key, number in (("offset", offset), ("length", len(tensor.raw_data))):
        tensor.external_data.add(key=key, value=str(number))
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL


def prediction_alone(model: onnx.ModelProto, metadata: Metadata) -> onnx.ModelProto:
    """What the model's own outputs are computed from, and of what weights; nothing that is said of the others."""
    outputs = len(metadata.outputs)
    alone = onnx.ModelProto()
    alone.CopyFrom(model)
    graph = alone.graph
    needed, nodes = {value.name for value in graph.output[:outputs]}, list[onnx.NodeProto]()
    for node in reversed(model.graph.node):  # nodes stand behind what they read
        if not needed.isdisjoint(node.output):
            needed.update(node.input)
            nodes.append(node)
    kept_properties = [entry for entry in model.metadata_props if entry.key in (SEAL_KEY, WEIGHTS_KEY)]
    del alone.metadata_props[:], graph.node[:], graph.output[outputs:]
    alone.metadata_props.extend(kept_properties)
    alone.metadata_props.add(key=PREDICTS_KEY, value=metadata.weights_sha256)
    graph.node.extend(reversed(nodes))
    of_every_kind: list[Any] = [graph.input, graph.initializer, graph.value_info]
    for entries in of_every_kind:
        kept = [entry for entry in entries if entry.name in needed]
        del entries[:]
        entries.extend(kept)
    return alone
