"""The JSON contract of an explainer file."""

import json
from typing import Any

import pytest

from relcompile.errors import ExplainerFileError, MetadataError
from relcompile.files.records import InputRecord, LayerRecord, MaskRecord, RootsRecord, TapRecord, TargetRecord
from relcompile.metadata import Metadata
from relcompile.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(256, "bicubic", 224, (103.5, 116.3, 123.7), (57.4, 57.1, 58.4), "BGR", scale=1.0)
FULL = Metadata(
    relcompile="0.1.0",
    torch="2.14.1",
    rule="z+",
    layers=(
        LayerRecord(
            "layer1.0.conv1",
            "convolution",
            "affine",
            "AlphaBeta(alpha=1.0, beta=0.0, bias='none', epsilon=1e-09)",
            1728,
        ),
        LayerRecord("relu", "relu", "activation", "pass", 0),
    ),
    target=TargetRecord("fixed", 1, 2),
    inputs=(InputRecord("image", ("batch", 3, 224, "width"), "float32"), InputRecord("ids", (1,), "int64")),
    outputs=("output", "features"),
    explained="output",
    relevance=("relevance_image", "relevance_ids"),
    absorbed=True,
    weights_sha256="ab" * 32,
    roots=RootsRecord(("relu",), ("|root| / |x|", "loss")),
    class_names=("Katze", "雨"),
    preprocessing=PREPROCESSING,
    at="layer1.0",
    taps=(TapRecord("relevance_at_layer1", "layer1", ("batch", 64, 56, 56)),),
    masks=(MaskRecord("layer1", InputRecord("mask_layer1", ("batch", 64), "float32")),),
    sampling="GaussianNoise(count=5, level=0.1)",
    noise=(InputRecord("noise", ("batch", 5, 3, 224, "width"), "float32"),),
    reference="0,0.5,0",
)
BARE = Metadata(
    relcompile="0.1.0",
    torch="2.14.1",
    rule="gradient",
    layers=(),
    target=TargetRecord("argmax"),
    inputs=(InputRecord("x", (), "float64"),),
    outputs=("y",),
    explained="y",
    relevance=("relevance",),
    absorbed=False,
    weights_sha256="",
)


def changed(path: str, value: Any) -> str:
    """The JSON of FULL with one entry replaced, or removed if the value is `...`."""
    raw = json.loads(FULL.to_json())
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    entry = raw
    for part in parents:
        entry = entry[part]
    if value is ...:
        del entry[last]
    else:
        entry[last] = value
    return json.dumps(raw)


@pytest.mark.parametrize("metadata", [FULL, BARE], ids=["full", "bare"])
def test_what_was_written_is_read(metadata: Metadata) -> None:
    assert Metadata.from_json(metadata.to_json()) == metadata


def test_the_names_of_the_contract() -> None:
    raw = json.loads(FULL.to_json())
    assert raw["format"] == 1
    assert raw["layers"][0] == {
        "name": "layer1.0.conv1",
        "operator": "convolution",
        "kind": "affine",
        "rule": "AlphaBeta(alpha=1.0, beta=0.0, bias='none', epsilon=1e-09)",
        "parameters": 1728,
    }
    single = {"questions": None, "indices": None, "against": []}
    assert raw["target"] == {"mode": "fixed", "index": 1, "classes": 2, **single}
    assert raw["inputs"][0] == {"name": "image", "shape": ["batch", 3, 224, "width"], "dtype": "float32"}
    assert raw["preprocessing"] == {
        "resize": 256,
        "interpolation": "bicubic",
        "crop": 224,
        "mean": [103.5, 116.3, 123.7],
        "std": [57.4, 57.1, 58.4],
        "channels": "BGR",
        "scale": 1.0,
    }
    assert set(raw) == {
        *("format", "relcompile", "torch", "rule", "layers", "target", "inputs", "outputs", "explained"),
        *("relevance", "at", "sampling", "noise", "absorbed", "weights_sha256", "roots", "class_names"),
        *("preprocessing", "reference", "reference_input", "model", "layer_rules", "start", "taps", "masks"),
        *("exclude_parallel", "reduce", "output_dtype", "chosen"),
    }


def test_a_whole_number_is_a_float_and_an_unknown_field_does_no_harm() -> None:
    raw = json.loads(changed("preprocessing.scale", 1))
    metadata = Metadata.from_json(json.dumps(raw | {"later": [1]}))
    assert metadata.preprocessing is not None
    assert (metadata.preprocessing.scale, type(metadata.preprocessing.scale)) == (1.0, float)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("format", 2, "format version 2, this relcompile reads 1"),
        ("format", ..., "metadata lacks format"),
        ("format", "1", 'metadata.format is "1", but should be int'),
        ("rule", ..., "metadata lacks rule"),
        ("layers.1.kind", ..., "metadata.layers[1] lacks kind"),
        ("layers.0.parameters", "many", 'metadata.layers[0].parameters is "many", but should be int'),
        ("layers.0.parameters", -1, "metadata.layers[0]: parameters is -1"),
        ("layers.0.parameters", True, "metadata.layers[0].parameters is true, but should be int"),
        ("layers", {}, "metadata.layers is {}"),
        ("layers.0", 7, "metadata.layers[0] is 7, but should be a JSON object"),
        ("absorbed", 1, "metadata.absorbed is 1, but should be bool"),
        ("torch", None, "metadata.torch is null, but should be str"),
        ("target.mode", "best", 'metadata.target.mode is "best", but should be typing.Literal['),
        ("target.index", 2, "index 2 is not one of 2 classes"),
        ("target.index", None, 'index belongs to mode "fixed"'),
        ("target.mode", "argmax", 'index belongs to mode "fixed"'),
        ("target.classes", 0, "classes is 0"),
        ("inputs", [], "there are no inputs"),
        ("inputs.0.shape", ["batch", 0], "has a size that is not positive"),
        ("inputs.0.shape", [1.5], "metadata.inputs[0].shape[0] is 1.5, but should be int | str"),
        ("inputs.0.dtype", "bfloat16", 'dtype "bfloat16" is not one that numpy and ONNX share'),
        ("explained", "logits", 'explained is "logits", which is not one of the outputs'),
        ("relevance", [], "there are no relevance outputs"),
        ("relevance", ["output"], "an output name occurs twice"),
        ("relevance", ["absorbed"], "an output name occurs twice"),
        ("relevance", ["roots"], "an output name occurs twice"),
        ("roots.layers", "relu", 'metadata.roots.layers is "relu"'),
        ("class_names", ["one"], "there are 1 class names for 2 classes"),
        ("class_names", "cat", 'metadata.class_names is "cat"'),
        ("preprocessing.mean", [0.5], "mean and std must have three values"),
        ("preprocessing.mean", [0.5, 0.5, "0"], 'metadata.preprocessing.mean[2] is "0", but should be float'),
        ("preprocessing.mean.0", float("nan"), "metadata.preprocessing.mean[0] is NaN, but should be float"),
        ("preprocessing.std.1", 0.0, "std and scale must be positive, and are "),
        ("preprocessing.crop", 0, "resize and crop must be positive"),
        ("preprocessing.channels", "RGBA", "metadata.preprocessing.channels"),
        ("noise.0.name", "image", "an input name occurs twice: image"),
        ("noise.0.name", "relevance_ids", "an input and an output have one name: relevance_ids"),
        ("noise.0.dtype", "int64", "noise has the dtype int64"),
        ("noise.0.shape", ["batch", 2**20, 2**20], "has more than 2^31 elements"),
        ("noise.0.shape", ["batch"] * 65, "65 axes"),
        ("sampling", None, "there is noise, but sampling says nothing of it"),
        ("reference_input", {"name": "ids", "shape": ["batch"], "dtype": "float32"}, "an input name occurs twice: ids"),
        (
            "reference_input",
            {"name": "r", "shape": ["batch"], "dtype": "float32"},
            'reference is "0,0.5,0", so it is no input',
        ),
        ("reference", "input", 'reference is "input", but reference_input is not'),
        ("inputs.0.name", "", "the name is empty"),
        ("inputs.0.shape", [10**30], "a number of 100 bits"),
        ("inputs.0.shape", [[[]]], "metadata.inputs[0].shape[0] is [[]], but should be"),
        ("relevance", ["a", "b", "c"], "3 relevance outputs for 2 inputs"),
        ("layers.0.parameters", 10**4000, "a number of 13288 bits"),
        ("preprocessing.mean.0", 10**400, "a number of 1329 bits"),
        ("preprocessing.mean.0", 1e300, "mean must lie within"),
        ("preprocessing.std.0", 1e-300, "std and scale between"),
        ("preprocessing.resize", 10**9, "resize and crop must be positive, and at most 65536"),
        ("rule", "x" * 10_001, "10,001 characters"),
        ("rule", "\ud800", "is not Unicode"),
        ("class_names", ["a"] * 1_000_001, "more than 1,000,000 entries"),
    ],
)
def test_what_is_wrong_is_refused_by_name(path: str, value: Any, message: str) -> None:
    with pytest.raises(ExplainerFileError) as caught:
        Metadata.from_json(changed(path, value))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "3", "null", "[]", '"format"'])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ExplainerFileError, match=r"not JSON|should be a JSON object"):
        Metadata.from_json(text)


@pytest.mark.parametrize("field", ["rule", "layers", "target", "preprocessing"])
def test_depth_is_bounded(field: str) -> None:
    raw = FULL.to_json().replace(f'"{field}": ', f'"{field}": ' + '[{"a":' * 400 + "1" + "}]" * 400 + ', "x": ', 1)
    with pytest.raises(ExplainerFileError, match=rf"metadata\.{field}"):
        Metadata.from_json(raw)


def test_a_contradiction_is_found_before_it_is_written() -> None:
    with pytest.raises(MetadataError, match="index belongs to"):
        TargetRecord("index", 3, 10)
