"""`relcompile explain`: photographs in, heatmaps and arrays out. Needs neither torch nor onnx."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias

import numpy as np
import typer

from relcompile.cli import views
from relcompile.errors import ExportError, InputSpecError
from relcompile.files.paths import keep_inputs, plain_name, refuse_links, save_arrays
from relcompile.metadata import Metadata, Preprocessing
from relcompile.runtime.production import Explanation, ProductionExplainer, load
from relcompile.runtime.session import Device

Array: TypeAlias = np.ndarray[Any, Any]

# Where nobody says how a photograph becomes the input: ImageNet's statistics, and the size that the model takes.
ASSUMED: Final = Preprocessing(
    resize=None, interpolation="bilinear", crop=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
_ASSUMED_GREY: Final = Preprocessing(resize=None, interpolation="bilinear", crop=None, mean=(0.0,), std=(1.0,))
_SUFFIXES: Final = (".png", ".npz")


def explain(
    explainer: Annotated[Path, typer.Argument(help="A compiled .onnx file.")],
    images: Annotated[list[Path], typer.Argument(help="Photographs.")],
    target: Annotated[int | None, typer.Option("--target", "-t", help="A class; default: the best one.")] = None,
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the heatmaps.")] = Path(),
    top: Annotated[int, typer.Option(help="How many classes to print.", min=1)] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Explain photographs: a heatmap (PHOTO.RULE.png) and the arrays (PHOTO.RULE.npz) of each."""
    if device not in ("auto", "cpu", "cuda"):
        raise InputSpecError(f"device {device!r} must be auto, cpu or cuda")
    explain_images(explainer, images, target=target, folder=out, top=top, device=device)


def explain_images(
    path: Path, images: Sequence[Path], *, target: int | None, folder: Path, top: int, device: Device
) -> None:
    """Write `IMAGE.RULE.png` (heatmap) and `IMAGE.RULE.npz` (arrays) into `folder` for every photograph.

    The name ends in the class, if one is given. Photographs are never written over.

    Raises:
        RelcompileError: a file cannot be read or written, or the explainer does not take photographs.
    """
    from relcompile.pictures.images import load_image, preprocess

    explainer = load(path, device=device)
    size, preprocessing = photograph_input(explainer.metadata)
    stems = _stems(path, images, folder, explainer.metadata.rule, target)
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


def _stems(explainer: Path, images: Sequence[Path], folder: Path, rule: str, target: int | None) -> list[str]:
    """What is written for each photograph, without the suffix: every one its own, and none that is read.

    Raises:
        ExportError: two photographs have one name, or a photograph or a link has the name of what is written.
    """
    ending = "".join(f".{plain_name(str(part))}" for part in (rule, target) if part is not None)
    stems = [str(folder / (image.stem + ending)) for image in images]
    twins = [str(image) for image, stem in zip(images, stems, strict=True) if stems.count(stem) > 1]
    if twins:
        raise ExportError(f"{' and '.join(twins)} would have one heatmap; explain them into different folders with -o")
    written = [Path(stem + suffix) for stem in stems for suffix in _SUFFIXES]
    keep_inputs((explainer, *images), written)
    refuse_links(written)
    return stems


def photograph_input(metadata: Metadata) -> tuple[tuple[int, int], Preprocessing]:
    """The size of the photographs that the explainer takes, and how they become its input.

    Raises:
        InputSpecError: it does not take photographs, or not with its preprocessing.
    """
    channels, *size = _image_shape(metadata)
    preprocessing = metadata.preprocessing
    if preprocessing is None and channels == 3:
        preprocessing = ASSUMED
        views.note("the explainer names no preprocessing: assuming ImageNet's mean and standard deviation")
    if preprocessing is None:
        preprocessing = _ASSUMED_GREY
        views.note("the explainer names no preprocessing: assuming grey values from 0 to 1")
    if len(preprocessing.mean) != channels:
        raise InputSpecError(
            f"the input has {channels} channels, the preprocessing of the file {len(preprocessing.mean)}: compile the "
            "model again with as many numbers in --mean and --std"
        )
    return (size[0], size[1]), preprocessing


def _image_shape(metadata: Metadata) -> tuple[int, ...]:
    """Channels, height and width."""
    shape = metadata.inputs[0].shape
    sizes = [size for size in shape[1:] if isinstance(size, int)]
    if len(metadata.inputs) != 1 or len(sizes) != 3 or len(shape) != 4 or shape[1] not in (1, 3):
        inputs = ", ".join(f"{i.name} {list(i.shape)}" for i in metadata.inputs)
        raise InputSpecError(f"this explainer takes {inputs}, not one photograph; use relcompile.load in Python")
    return tuple(sizes)


def explain_best(explainer: ProductionExplainer, array: Array, target: int | None) -> Explanation:
    """Explain `target`, or the best class if none is given; the first run then only finds out which that is."""
    record = explainer.metadata.target
    if record.questions is not None:
        raise InputSpecError("this explainer has several targets for each photograph; use relcompile.load in Python")
    if record.takes_seed:
        raise InputSpecError("this explainer takes a relevance seed; use relcompile.load in Python")
    if not record.takes_class or target is not None:
        return explainer.explain(array, target=target)
    first = explainer.explain(array, target=0)
    best = int(_scores(first.output).argmax())
    return first if best == 0 else explainer.explain(array, target=best)


def _scores(output: Array) -> Array:
    """The scores (classes,) of one sample, summed over positions; one score for an output (1,)."""
    return output.reshape(output.shape[1] if output.ndim > 1 else 1, -1).sum(1)


def _write(stem: str, explanation: Explanation, view: Any, metadata: Metadata, top: int, title: str) -> None:
    with chdir(Path(__file__).parent):  # matplotlib reads settings of the working directory; before 3.11 it runs them
        from relcompile.pictures.heatmap import heatmap_title, save_heatmap

    scores, relevance = _scores(explanation.output), explanation.relevance[0]
    order = np.argsort(-scores)[:top]
    views.classes(title, [(_label(metadata, int(k)), float(scores[k])) for k in order])
    if explanation.target is None:
        chosen, label, score = -1, "the best class of every position", float(explanation.output.max(1).sum())
    else:
        chosen = int(explanation.target[0])
        label, score = _label(metadata, chosen), float(scores[chosen])
    picture, arrays = (Path(stem + suffix) for suffix in _SUFFIXES)
    save_heatmap(picture, relevance, view, heatmap_title(f"{label}, rule {metadata.rule}", score, relevance))
    save_arrays(arrays, relevance=relevance, output=explanation.output[0], target=np.array(chosen))
    views.note(f"wrote {picture} and {arrays}")


def _label(metadata: Metadata, index: int) -> str:
    if metadata.target.classes is None:
        return metadata.explained
    return f"{metadata.class_names[index]} ({index})" if metadata.class_names else f"class {index}"
