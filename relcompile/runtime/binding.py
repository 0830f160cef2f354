"""Tensors that are read and written where they are, on a GPU for example; by DLPack, without copies."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, Final

from relcompile.errors import InputSpecError, RuntimeUnavailableError
from relcompile.runtime.graph import Graph
from relcompile.runtime.options import CPU, GpuOptions, run_options
from relcompile.runtime.session import import_onnxruntime

_NUMBERS: Final = itertools.count(1)  # of recorded runs


class Bound:
    """A graph with its tensors: `run` reads the inputs, and writes the outputs, where they are. For one thread.

    The caller writes new numbers into the tensors that were bound, and runs again; on a GPU, the own stream has to be
    waited for before (`torch.cuda.current_stream().synchronize()`). Made by `ProductionExplainer.bind`.

    Args:
        graph: What is run.
        tensors: All of its inputs, by name.
        gpu: The GPU, and whether runs are recorded.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Any], gpu: GpuOptions) -> None:
        self._graph, runtime = graph, import_onnxruntime()
        if not hasattr(runtime.OrtValue, "from_dlpack"):
            raise RuntimeUnavailableError(f"ONNX Runtime {runtime.__version__} has no DLPack: install a newer one")
        self._options = graph.run_options
        self._binding = graph.session.io_binding()
        for name, value in _checked(graph, tensors, runtime.OrtValue).items():
            self._binding.bind_ortvalue_input(name, value)
        place = ("cpu", 0) if graph.providers[0] == CPU else ("cuda", gpu.number)
        for name in graph.names:
            self._binding.bind_output(name, *place)
        self._outputs = self.run()  # which ONNX Runtime makes in this first run, and fills in all others
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        if gpu.cuda_graph:
            self._options = run_options(runtime, next(_NUMBERS))

    def run(self) -> dict[str, Any]:
        """All outputs by name, for the numbers that the inputs have now; the same tensors at every call.

        Returns:
            ONNX Runtime's values, which speak DLPack: `torch.from_dlpack(found["relevance"])`.

        Raises:
            RuntimeUnavailableError: ONNX Runtime failed while it ran.
        """
        try:
            self._graph.session.run_with_iobinding(self._binding, self._options)
        except Exception as error:  # ONNX Runtime's exceptions share no base class
            raise RuntimeUnavailableError(f"ONNX Runtime failed on {self._graph.providers[0]}: {error}") from error
        return dict(zip(self._graph.names, self._binding.get_outputs(), strict=True))


def _checked(graph: Graph, tensors: Mapping[str, Any], values: Any) -> dict[str, Any]:
    """ONNX Runtime's view of the tensors, if they are what the graph reads.

    Raises:
        InputSpecError: they are not.
    """
    if set(tensors) != {record.name for record in graph.inputs}:
        wanted = ", ".join(record.name for record in graph.inputs)
        raise InputSpecError(f"{', '.join(tensors) or 'nothing'} was given, but the file takes {wanted}")
    found, sizes = dict[str, Any](), dict[str, int]()
    for declared in graph.session.get_inputs():
        try:
            value = found[declared.name] = values.from_dlpack(tensors[declared.name])
        except Exception as error:  # of ONNX Runtime, or of whoever made the tensor
            raise InputSpecError(f"input {declared.name} cannot be taken over by DLPack: {error}") from error
        bound = [size if isinstance(size, int) else sizes.setdefault(str(size), given)
                 for size, given in zip(declared.shape, value.shape(), strict=False)]  # fmt: skip
        if value.data_type() != declared.type or bound != value.shape() or len(bound) != len(declared.shape):
            raise InputSpecError(
                f"input {declared.name} wants {declared.type} {declared.shape}, but {value.data_type()} "
                f"{value.shape()} was given"
            )
        if 0 in bound:
            raise InputSpecError(f"input {declared.name}: an empty tensor of shape {bound} was given")
    return found
