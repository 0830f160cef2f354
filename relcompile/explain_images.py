"""`relcompile explain`: photographs in, heatmaps and arrays out. Needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from relcompile import views
from relcompile.errors import ExportError, InputSpecError
from relcompile.files import keep_inputs, plain_name, save_arrays
from relcompile.heatmap import heatmap_title, save_heatmap
from relcompile.images import load_image, preprocess
from relcompile.metadata import Metadata, Preprocessing
from relcompile.runtime import Device, Explanation, ProductionExplainer, load

# Where nobody says how a photograph becomes the input: ImageNet's statistics, and the size that the model takes.
ASSUMED: Final = Preprocessing(
    resize=None, interpolation="bilinear", crop=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
_SUFFIXES: Final = (".png", ".npz")


def explain_images(
    path: Path, images: Sequence[Path], *, target: int | None, folder: Path, top: int, device: Device
) -> None:
    """Write `IMAGE.RULE.png` (heatmap) and `IMAGE.RULE.npz` (arrays) into `folder` for every photograph.

    The name ends in the class, if one is given. Photographs are never written over.

    Raises:
        RelcompileError: a file cannot be read or written, or the explainer does not take photographs.
    """
    explainer = load(path, device=device)
    size, preprocessing = photograph_input(explainer.metadata)
    stems = _stems(images, folder, explainer.metadata.rule, target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{folder}: {error.strerror}") from error
    with views.progress("explain") as tell:
        for image, stem in zip(images, stems, strict=True):
            tell(image.name)
            array, view = preprocess(load_image(image), preprocessing, size)
            explanation = explain_best(explainer, array, target)
            _write(stem, explanation, view, explainer.metadata, top, image.name)


def _stems(images: Sequence[Path], folder: Path, rule: str, target: int | None) -> list[str]:
    """What is written for each photograph, without the suffix: every one its own, and none a photograph.

    Raises:
        ExportError: two photographs have one name, or a photograph has the name of what is written.
    """
    ending = "".join(f".{plain_name(str(part))}" for part in (rule, target) if part is not None)
    stems = [str(folder / (image.stem + ending)) for image in images]
    twins = [str(image) for image, stem in zip(images, stems, strict=True) if stems.count(stem) > 1]
    if twins:
        raise ExportError(f"{' and '.join(twins)} would have one heatmap; explain them into different folders with -o")
    keep_inputs(images, (Path(stem + suffix) for stem in stems for suffix in _SUFFIXES))
    return stems


def photograph_input(metadata: Metadata) -> tuple[tuple[int, int], Preprocessing]:
    """The size of the photographs that the explainer takes, and how they become its input.

    Raises:
        InputSpecError: it does not take photographs.
    """
    size, preprocessing = _image_size(metadata), metadata.preprocessing
    if preprocessing is None:
        preprocessing = ASSUMED
        views.note("the explainer names no preprocessing: assuming ImageNet's mean and standard deviation")
    return size, preprocessing


def _image_size(metadata: Metadata) -> tuple[int, int]:
    shape = metadata.inputs[0].shape
    if len(metadata.inputs) != 1 or len(shape) != 4 or shape[1] != 3:
        inputs = ", ".join(f"{i.name} {list(i.shape)}" for i in metadata.inputs)
        raise InputSpecError(f"this explainer takes {inputs}, not one RGB photograph; use relcompile.load in Python")
    return int(shape[2]), int(shape[3])


def explain_best(explainer: ProductionExplainer, array: np.ndarray[Any, Any], target: int | None) -> Explanation:
    """Explain `target`, or the best class if none is given; the first run then only finds out which that is."""
    mode = explainer.metadata.target.mode
    if mode == "seed":
        raise InputSpecError("this explainer takes a relevance seed; use relcompile.load in Python")
    if mode != "index" or target is not None:
        return explainer.explain(array, target=target)
    best = int(explainer.explain(array, target=0).output[0].argmax())
    return explainer.explain(array, target=best)


def _write(stem: str, explanation: Explanation, view: Any, metadata: Metadata, top: int, title: str) -> None:
    scores = explanation.output[0].reshape(explanation.output.shape[1], -1).sum(1)
    order = np.argsort(-scores)[:top]
    views.classes(title, [(_label(metadata, int(k)), float(scores[k])) for k in order])
    chosen = int(order[0]) if explanation.target is None else int(explanation.target[0])
    relevance = explanation.relevance[0]
    heading = heatmap_title(f"{_label(metadata, chosen)}, rule {metadata.rule}", float(scores[chosen]), relevance)
    picture, arrays = (Path(stem + suffix) for suffix in _SUFFIXES)
    save_heatmap(picture, relevance, view, heading)
    save_arrays(arrays, relevance=relevance, output=explanation.output[0], target=np.array(chosen))
    views.note(f"wrote {picture} and {arrays}")


def _label(metadata: Metadata, index: int) -> str:
    return f"{metadata.class_names[index]} ({index})" if metadata.class_names else f"class {index}"
