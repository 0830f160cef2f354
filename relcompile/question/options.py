"""Everything that one can ask for, as one object: `compile` makes it of its keywords, the command line of its text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypedDict

import torch
from torch.fx import GraphModule

from relcompile.calibration.store import Calibration
from relcompile.errors import CompositeError
from relcompile.methods.composites import Composite, Entry
from relcompile.methods.preset import Given, bounds_of
from relcompile.methods.rules.adjoint import Fallback
from relcompile.methods.rules.parameters import Bounds
from relcompile.methods.spelling import layer_entry, named
from relcompile.preprocessing import Preprocessing
from relcompile.question.automatic import AUTO, STAND_IN, choice_for
from relcompile.question.outputs import check_outputs_asked
from relcompile.question.references import Reference, chosen_reference
from relcompile.question.targets import Target


class Keywords(TypedDict, total=False):
    """The fields of `Options`, as keywords of `compile`."""

    rule: str | Composite
    layers: Sequence[str]
    rules: Sequence[Entry]
    fallback: Literal["gradient"] | None
    bounds: Bounds | None
    calibration: Calibration | None
    target: str | int | Target
    reference: Reference | None
    explain: Sequence[str] | None
    dynamic: Sequence[str]
    output: int | str
    at: str | None
    taps: Sequence[str]
    start: str | None
    masks: Sequence[str]
    exclude_parallel: bool
    reduce: str | None
    output_dtype: str | None
    absorbed: bool
    roots: bool
    forward_derivative: bool
    class_names: Sequence[str] | None
    preprocessing: Preprocessing | None
    name: str | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is asked of a model.

    Args:
        rule: a name ("z+", "epsilon=0.25"), a composite file (.toml) or a composite; "auto" chooses by what is in the
            model, and says why in the metadata.
        layers: rules of single layers that win over it, "NAME-GLOB=RULE" as in "features.0=flat".
        rules: rules from outside: entries that win over those of `rule`, for an operator, a module class or a layer;
            each has to match something.
        fallback: "gradient": operators that the rule has no answer for get their exact adjoint, which the explainer's
            metadata say of each; None: they are refused.
        bounds: (low, high) of the input, numbers or one per channel, for the rules that need them; taken from
            `preprocessing` if that is given.
        calibration: the patterns of this very model, for the rules that need them (see `relcompile.calibrate`).
        target: "index" (a runtime input), "argmax", or a class number; of an output with further axes "entry" (a
            runtime input, one index for every axis behind the batch: a class at a position) or "region" (one like the
            output, 1 where it is explained); "seed" (a runtime input, the relevance of the output itself).
        reference: the input that differences are taken from, for the deeplift rules, or that the path starts from, for
            integrated-gradients: one number, one per channel, a tensor of one sample, or "input" (a runtime input
            `reference`); by name of an explained input, if each has its own; 0 by default. A tensor of several samples
            is a background: deeplift relevance is averaged over it (DeepLIFT SHAP).
        explain: names of the inputs that get relevance; all floating point inputs by default, or else the integer
            inputs that are embedded (relevance of every token: the sum over the features of its embedding).
        dynamic: axes of inputs that are free like the batch: "input_ids:1" for the length of a text, "x:2" and "x:3"
            for the sides of an image. Their sizes are the caller's choice, of an exported file too.
        output: position or name of the output that is explained (keys of nested outputs are names: "logits", or
            "hidden_0" for the first of a list); if that is not floating point and exactly one is, that one.
        at: name of a layer: relevance is that of its output, and not that of the input. (Grad-CAM reads its feature
            map there; by default it takes the last one.)
        taps: names of layers: beside the relevance of the input also that of their outputs, `relevance_at_<layer>`.
        start: name of a layer: relevance starts at its output, not at that of the model. The input `target` is that
            relevance, in the shape of the layer's output (for gradients: the multiplier), as a tap reads it.
        masks: names of layers: for each an input `mask_<layer>` (_ for a dot), (N, channels), ones by default, that is
            multiplied onto what passes the layer's output; channels are the axis behind the batch.
        exclude_parallel: cut what leads around the masked layers, so that everything has passed all of them, one after
            the other (of layers side by side: one of them).
        reduce: one number for all channels of the relevance that is read, (N, 1, ...): "sum", "abs" (the sum of
            magnitudes) or "max" (the largest magnitude). Taps keep theirs.
        output_dtype: "float16" for relevance and taps in half precision, from 6e-5 to 65504.
        absorbed: also compute what biases and stabilisers absorb, (N, operators).
        roots: also report on the roots that the rules learn, (N, roots, quantities); names are in the metadata.
        forward_derivative: the model calls custom autograd functions or hooks, and yet the derivative of its forward is
            meant, for the rules that are gradients.
        class_names: stored with the explainer, one per class.
        preprocessing: stored with the explainer: how a photograph becomes the input; that of the calibration, if it
            was made from photographs.
        name: of the model; stored with the explainer, and part of the names of the maps that it makes.
        chosen: why the rule was chosen, if "auto" chose it: `settled` fills it in.
    """

    rule: str | Composite = "z+"
    layers: Sequence[str] = ()
    rules: Sequence[Entry] = ()
    fallback: Literal["gradient"] | None = None
    bounds: Bounds | None = None
    calibration: Calibration | None = None
    target: str | int | Target = "index"
    reference: Reference | None = None
    explain: Sequence[str] | None = None
    dynamic: Sequence[str] = ()
    output: int | str = 0
    at: str | None = None
    taps: Sequence[str] = ()
    start: str | None = None
    masks: Sequence[str] = ()
    exclude_parallel: bool = False
    reduce: str | None = None
    output_dtype: str | None = None
    absorbed: bool = False
    roots: bool = False
    forward_derivative: bool = False
    class_names: Sequence[str] | None = None
    preprocessing: Preprocessing | None = None
    name: str | None = None
    chosen: str | None = None

    def settled(self, module: GraphModule) -> Options:
        """The same with the rule that suits a captured model, if that was left open."""
        if self.rule != AUTO:
            return self
        choice = choice_for(module)
        return replace(self, rule=choice.rule, chosen=choice.why)

    @cached_property
    def composite(self) -> Composite:
        """The rule of every layer.

        Raises:
            CompositeError: a rule does not exist, or lacks what it needs.
        """
        return self._composed(Given(self.bounds or bounds_of(self.photographs), self.calibration))

    @property
    def rules_of_layers(self) -> tuple[str, ...]:
        """What wins over the rule, as it is told apart in the name of the explainer."""
        return (*self.layers, *(entry.label for entry in self.rules))

    @property
    def photographs(self) -> Preprocessing | None:
        """How a photograph becomes the input, if that is known."""
        return self.preprocessing or (None if self.calibration is None else self.calibration.preprocessing)

    def check(self, weights_sha256: str, inputs: Mapping[str, torch.Tensor]) -> None:
        """Refuse, for a model with these weights and inputs, what is known to be wrong before the model is captured.

        Raises:
            CalibrationError: the calibration belongs to a model with other weights, or to other preprocessing.
            CompositeError: as `composite`; or bounds, a calibration or a reference were given to a rule without.
            InputSpecError: no photograph becomes such an input, or photographs leave the bounds; or relevance is to
                leave the graph in no known form.
        """
        check_outputs_asked(self.reduce, self.output_dtype)
        chosen_reference(self.composite, self.reference)
        for need, given in (("bounds", self.bounds), ("calibration", self.calibration)):
            if given is not None and not self.takes(need):
                raise CompositeError(f"rule {self.composite.name} takes no {need}: leave --{need} ({need}=) out")
        if self.calibration is not None:
            self.calibration.require(weights_sha256, self.preprocessing)
        if self.photographs is not None:
            if self.bounds is not None:
                self.photographs.require_within(*self.bounds)
            self.photographs.require_input({name: tuple(tensor.shape) for name, tensor in inputs.items()})

    def _composed(self, given: Given) -> Composite:
        rule = STAND_IN if self.rule == AUTO else self.rule
        composite = named(rule, given) if isinstance(rule, str) else rule
        outside = (replace(entry, required=True) for entry in self.rules)
        composite = composite.with_entries(*(layer_entry(text, given) for text in self.layers), *outside)
        return composite if self.fallback is None else replace(composite, fallback=Fallback())

    def takes(self, need: str) -> bool:
        """Whether the rules are others without what they were given."""
        given = Given(self.bounds, self.calibration)
        try:
            return self._composed(replace(given, **{need: None})) != self._composed(given)
        except CompositeError:
            return True
