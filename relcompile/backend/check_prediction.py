"""Does an explainer predict what its model predicts? Asked after every compilation, on the examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.fx import Graph, GraphModule
from torch.utils import _pytree as pytree

from passes.errors import MiscompilationError
from relcompile.backend.compiled import Compiled
from relcompile.frontend.capture import call_arguments, in_eval_mode

_OTHER_ENTRIES = 0.01  # of integers: rounding may decide which of two nearly equal values is the largest


def check_outputs(model: torch.nn.Module, explainer: Compiled) -> None:
    """Run the model, and the half of the explainer that predicts, once on the examples.

    If axes are free, once more on smaller examples.

    The outputs may differ by rounding alone: by half of the digits of their data type, relative to their maximum.

    Raises:
        MiscompilationError: an output differs by more.
    """
    predicting = _predicting(explainer.graph_module, len(explainer.metadata.outputs))
    for arguments in (tuple(explainer.examples.values()), explainer.smaller_arguments()):
        if arguments is not None:
            _check_on(model, explainer, predicting, arguments)


def _check_on(
    model: torch.nn.Module, explainer: Compiled, predicting: GraphModule, arguments: Sequence[torch.Tensor]
) -> None:
    names, own = explainer.metadata.outputs, [record.name for record in explainer.metadata.inputs]
    examples = {name: x for name, x in zip(explainer.examples, arguments, strict=True) if name in own}
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)  # a model may draw noise
        found = predicting(*arguments)
        torch.manual_seed(0)
        wanted = _prediction(model, examples)
    wrong = {
        name: error
        for name, a, b in zip(names, found, wanted, strict=True)
        if not (error := _difference(a, b)) <= _tolerance(b.dtype)
    }
    if wrong:
        listing = ", ".join(f"{name} by {error:.2e} of its maximum" for name, error in wrong.items())
        raise MiscompilationError(f"the explainer does not predict what the model predicts: {listing}")


def _predicting(module: GraphModule, outputs: int) -> GraphModule:
    """The part of an explainer graph that computes its first `outputs` outputs."""
    graph = Graph()
    results = graph.graph_copy(module.graph, {})
    graph.output(tuple(results[:outputs]))  # type: ignore[index]
    graph.eliminate_dead_code()
    return GraphModule(module, graph)


def _prediction(model: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """The tensors among the results of the model, which may overwrite its inputs."""
    args, kwargs = call_arguments(model, {name: tensor.clone() for name, tensor in inputs.items()})
    with in_eval_mode(model):
        results = model(*args, **kwargs)
    return [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, torch.Tensor)]


def _difference(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference over the largest magnitude; of integers, the share that differs."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return float("inf")
    same = (found == wanted) | (found.isnan() & wanted.isnan())
    if same.all():
        return 0.0
    if not wanted.is_floating_point():
        return 1 - same.double().mean().item()
    error = (found - wanted).abs().double().masked_fill(same, 0.0)
    largest = wanted[wanted.isfinite()].abs().double().amax() if wanted.isfinite().any() else error.new_ones(())
    return (error.amax() / (largest if largest > 0 else 1.0)).item()


def _tolerance(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps ** 0.5 if dtype.is_floating_point else _OTHER_ENTRIES
