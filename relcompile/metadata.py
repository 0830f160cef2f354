"""What an explainer file says about itself: one JSON object, stored in the ONNX file's metadata properties.

The compiler writes it and the runtime reads it, so this module imports only the standard library and errors.
"""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from typing import Self, cast

from relcompile.errors import ExplainerFileError
from relcompile.files.records import (
    MANY,
    InputRecord,
    LayerRecord,
    MaskRecord,
    RootsRecord,
    TapRecord,
    TargetRecord,
    require,
)
from relcompile.files.typed_json import decode_record, parse_json
from relcompile.preprocessing import Preprocessing

METADATA_KEY = "relcompile"  # of the JSON text in the ONNX file's metadata_props
SOURCE_KEY = "relcompile.py"  # of the Python source in a .pt2 file
FORMAT = 1  # the format version that this relcompile writes, and the only one it reads
ABSORBED_OUTPUT = "absorbed"  # the output with the relevance that each layer absorbed, if the file has one
ROOTS_OUTPUT = "roots"  # the output with the report on learned roots, if the file has one
TARGET_INPUT = "target"  # the input for it, if it takes one
TARGET_OUTPUT = "target"  # the output with the classes that were explained, if the file chooses several
FALLBACK = "Fallback()"  # the rule of an operator that the method has none for, where the user asked for the gradient
HEADS = ("sigmoid", "log_sigmoid", "hardsigmoid", "tanh")  # what turns a score into something else, beside softmax


@dataclass(frozen=True)
class Metadata:
    """Everything that an explainer file says about itself.

    Args:
        relcompile: Version of relcompile that wrote the file; `torch`: of PyTorch that captured the model.
        rule: The rule the user asked for, "z+".
        model: The name of the model, "resnet18", or None.
        layer_rules: The rules of single layers that the user asked for, "features.0=flat".
        layers: Every layer with its own rule, in the order of the graph.
        target: How the class to explain is chosen.
        inputs: The model's own inputs, in the order of `forward`.
        outputs: Names of the model's own outputs; `explained` is the one that is explained.
        relevance: Names of the relevance outputs, one for each explained input, in the order of `inputs`; or one, of
            the layer `at`.
        absorbed: Whether the output "absorbed", shape (batch, number of layers), exists.
        weights_sha256: Checksum of the weights, in hexadecimal.
        roots: The rows and columns of the output "roots", None if there is none.
        class_names: One name a class, or None.
        preprocessing: How a photograph becomes the input, or None.
        at: The layer at whose output relevance is read (for Grad-CAM: whose map is weighted); None: at the inputs.
        start: The layer at whose output relevance starts (the target has its shape); None: the explained output.
        taps: Relevance of layers, beside `relevance`.
        masks: Layers whose relevance is masked, and the further inputs that hold the masks.
        exclude_parallel: Relevance that leads around these layers is cut.
        reduce: How the channels of relevance became one: "sum", "abs" or "max"; or None.
        output_dtype: Of relevance and taps, "float16"; None: that of the model.
        sampling: Which copies of the input were averaged over, "GaussianNoise(count=25, level=0.15)", or None.
        noise: Further inputs of the graph that want standard normal numbers.
        reference: What differences are taken from: "0", "0.1,0.2,0.3", "tensor", "input" (it is a further input of
            the graph), or None.
        reference_input: That further input, or None.
        chosen: Why the rule is this one, if the user left that to relcompile (`--rule auto`); else None.
        format: Version of this contract.

    Raises:
        MetadataError: Fields contradict each other.
    """

    relcompile: str
    torch: str
    rule: str
    layers: tuple[LayerRecord, ...]
    target: TargetRecord
    inputs: tuple[InputRecord, ...]
    outputs: tuple[str, ...]
    explained: str
    relevance: tuple[str, ...]
    absorbed: bool
    weights_sha256: str
    roots: RootsRecord | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    at: str | None = None
    start: str | None = None
    taps: tuple[TapRecord, ...] = ()
    masks: tuple[MaskRecord, ...] = ()
    exclude_parallel: bool = False
    reduce: str | None = None
    output_dtype: str | None = None
    sampling: str | None = None
    noise: tuple[InputRecord, ...] = ()
    reference: str | None = None
    reference_input: InputRecord | None = None
    model: str | None = None
    layer_rules: tuple[str, ...] = ()
    chosen: str | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        require(bool(self.inputs), "there are no inputs")
        require(bool(self.relevance), "there are no relevance outputs")
        require(
            self.explained in self.outputs,
            f'explained is "{self.explained}", which is not one of the outputs',
        )
        further = (*(mask.input for mask in self.masks), *self.noise, self.reference_input)
        read = [record.name for record in (*self.inputs, *further) if record is not None]
        for kind, names in (("input", read), ("output", self.output_names)):
            twice = [name for name, count in Counter(names).items() if count > 1]
            require(not twice, f"an {kind} name occurs twice: {', '.join(twice)}")
        both = set(read).intersection(self.output_names)
        require(not both, f"an input and an output have one name: {', '.join(sorted(both))}")
        require(
            len(self.relevance) <= len(self.inputs),
            f"there are {len(self.relevance)} relevance outputs for {len(self.inputs)} inputs",
        )
        self._require_noise()
        known = None if self.class_names is None else len(self.class_names)
        require(
            None in (known, self.target.classes) or known == self.target.classes,
            f"there are {known} class names for {self.target.classes} classes",
        )

    def _require_noise(self) -> None:
        """Noise is numbers, and a reference is of an input: neither can be what the graph takes for another input."""
        kinds = [record.dtype for record in self.noise if not record.dtype.startswith("float")]
        require(not kinds, f"noise has the dtype {', '.join(kinds)}, which is not one of floating point")
        require(not self.noise or self.sampling is not None, "there is noise, but sampling says nothing of it")
        fixed = self.reference not in (None, "input")
        require(not fixed or self.reference_input is None, f'reference is "{self.reference}", so it is no input')
        at_runtime = self.reference == "input"
        require(not at_runtime or self.reference_input is not None, 'reference is "input", but reference_input is not')

    @property
    def name(self) -> tuple[str, ...]:
        """What tells this explainer from others: model, rule, rules of layers, target, layer, reference."""
        places = {"start": self.start, "at": self.at}
        place = tuple(f"{verb} {layer}" for verb, layer in places.items() if layer is not None)
        reference = () if self.reference in (None, "0") else (f"reference {self.reference}",)
        over = () if self.reduce is None else (f"{self.reduce} over channels",)
        return (
            *filter(None, (self.model,)),
            self.rule,
            *self.layer_rules,
            *self.target.name,
            *place,
            *reference,
            *over,
        )

    @property
    def output_names(self) -> list[str]:
        """All outputs: the model's own, the relevance, the taps and, if there are any, the reports."""
        reports = {
            ABSORBED_OUTPUT: self.absorbed,
            ROOTS_OUTPUT: self.roots is not None,
            TARGET_OUTPUT: self.target.is_reported,
        }
        taps = (tap.name for tap in self.taps)
        return [*self.outputs, *self.relevance, *taps, *(name for name, present in reports.items() if present)]

    @property
    def names_of_many(self) -> frozenset[str]:
        """Inputs with as many entries for each sample, along axis 1, as the caller has questions."""
        if self.target.questions != MANY:
            return frozenset()
        return frozenset((TARGET_INPUT, *(mask.input.name for mask in self.masks)))

    @property
    def quantity(self) -> str:
        """What is explained: "the score under sigmoid", "the output of softmax" (a probability) or "the output"."""
        if self.start is not None:
            return f"the output of layer {self.start}"
        if self._under:
            return f"the score under {', '.join(self._under)}"
        return f"the output of {', '.join(self.heads)}" if self.heads else "the output"

    @property
    def heads(self) -> tuple[str, ...]:
        """What makes the model's output of a score (sigmoid, softmax, ...); nothing where relevance starts below."""
        if self.start is not None:
            return ()
        last = next((layer for layer in reversed(self.layers) if layer.kind != "structure"), None)
        is_head = last is not None and (last.kind == "softmax" or last.operator in HEADS)
        return self._under or ((last.operator,) if last is not None and is_head else ())

    @property
    def _under(self) -> tuple[str, ...]:
        """The operators under which the score is explained, not their output."""
        return tuple(dict.fromkeys(layer.operator for layer in self.layers if layer.rule.startswith("ScoresUnder")))

    def to_json(self) -> str:
        """The JSON text that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read and check the JSON text of an explainer file; fields that are not known are ignored.

        Raises:
            ExplainerFileError: The text is not JSON, has another format version, lacks a field, or has
                a field of a wrong type or with an impossible value; the message names the field.
        """
        raw = parse_json(text, "the relcompile metadata")
        version = cast("dict[str, object]", raw).get("format") if isinstance(raw, dict) else None
        if type(version) is int and version != FORMAT:
            raise ExplainerFileError(
                f"the relcompile metadata has format version {version}, this relcompile reads {FORMAT}; "
                "use the relcompile that wrote the file, or compile the model again"
            )
        return decode_record(cls, raw, "metadata")
