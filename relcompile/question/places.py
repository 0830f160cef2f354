"""Where relevance starts, is read and is masked: layers by the user's names, and their values by anchors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from torch.fx import GraphModule, Node

from passes.graphs.anchors import add_anchor, anchored
from passes.graphs.graph import layer_name
from passes.views.named_layers import last_feature_map, layer_output
from relcompile.errors import InputSpecError
from relcompile.question.options import Options


@dataclass(frozen=True)
class Places:
    """The layers that a question names; what is said of one is said of its output.

    Attributes:
        start: where relevance starts; None for the explained output.
        at: where it is read; None for the explained inputs.
        taps: where it is read as well.
        masks: where it is masked.
        exclude_parallel: what leads around these is cut.
    """

    start: str | None = None
    at: str | None = None
    taps: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    exclude_parallel: bool = False

    @classmethod
    def resolve(
        cls, module: GraphModule, sources: list[Node], sink: Node, options: Options, *, reads_layer: bool
    ) -> Places:
        """The layers that `options` name, each anchored in the captured graph `module`.

        Args:
            module: the captured graph.
            sources: the explained inputs.
            sink: the explained output.
            options: what the user asks for.
            reads_layer: without `at`, relevance is read at the last feature map.

        Raises:
            InputSpecError: a layer that is masked has no channels; or the ways around no masks are to be cut.
            passes.errors.UnknownLayerError: a layer does not exist, or not between the inputs and the start.
        """
        top = sink if options.start is None else layer_output(module, options.start, sources, sink)
        at, place = options.at, None
        if at is not None:
            place = layer_output(module, at, sources, top)
        elif reads_layer:
            place = last_feature_map(module, sources, top)
            at = layer_name(place)
        taps, masks = (tuple(dict.fromkeys(names)) for names in (options.taps, options.masks))
        places = cls(options.start, at, taps, masks, options.exclude_parallel)
        nodes = [] if options.start is None else [top]
        nodes += [] if place is None else [place]
        nodes += [layer_output(module, layer, sources, top) for layer in (*places.taps, *places.masks)]
        for anchor, node in zip(places._anchors, nodes, strict=True):
            add_anchor(module, anchor, node)
        places._require_channels(module)
        return places

    @property
    def start_anchor(self) -> str | None:
        """The value where relevance starts, if it is not the explained output."""
        return None if self.start is None else f"start at {self.start}"

    @property
    def at_anchor(self) -> str | None:
        """The value that is read, if it is not an input."""
        return None if self.at is None else f"read at {self.at}"

    @property
    def tap_anchors(self) -> tuple[str, ...]:
        """The values that are read as well."""
        return tuple(f"tap at {layer}" for layer in self.taps)

    @property
    def mask_inputs(self) -> dict[str, str]:
        """The inputs for masks, by anchor of the value that each masks."""
        return {f"mask at {layer}": "mask_" + re.sub(r"\W", "_", layer) for layer in self.masks}

    @property
    def tap_outputs(self) -> tuple[str, ...]:
        """The outputs that taps become."""
        return tuple(f"relevance_at_{layer}" for layer in self.taps)

    def read_shapes(self, module: GraphModule) -> list[tuple[Any, ...]]:
        """Shapes of all layers' outputs that are read."""
        nodes, names = anchored(module), (self.at_anchor, *self.tap_anchors)
        return [tuple(nodes[name].meta["val"].shape) for name in names if name is not None]

    @property
    def _anchors(self) -> list[str]:
        names = (self.start_anchor, self.at_anchor, *self.tap_anchors, *self.mask_inputs)
        return [name for name in names if name is not None]

    def _require_channels(self, module: GraphModule) -> None:
        if self.exclude_parallel and not self.masks:
            raise InputSpecError(
                "exclude_parallel (--exclude-parallel) cuts what leads around masked layers, and no layer is masked: "
                "name one with masks= (--mask)"
            )
        nodes = anchored(module)
        for layer, anchor in zip(self.masks, self.mask_inputs, strict=True):
            shape = list(nodes[anchor].meta["val"].shape)
            if len(shape) < 2 or not isinstance(shape[1], int):
                raise InputSpecError(f"the output {shape} of layer {layer!r} has no axis of channels to mask")
