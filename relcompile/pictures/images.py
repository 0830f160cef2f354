"""From a photograph in a file to the array that a model takes."""

import os
import warnings
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from relcompile.errors import InputSpecError
from relcompile.files.paths import open_input
from relcompile.preprocessing import Preprocessing

_RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

# Formats of pixels alone. Pillow knows others that are programs (EPS starts Ghostscript) or containers of anything.
FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "TIFF")
LARGEST_PHOTOGRAPH: Final = 2**28  # bytes: of a file, and of its pixels in RGB
_MOST_PIXELS: Final = LARGEST_PHOTOGRAPH // 3


def image_suffixes() -> frozenset[str]:
    """Suffixes of the photographs that are read, ".jpg" and so on."""
    kinds = (*FORMATS, "MPO")  # several JPEGs in one file, as some cameras write them
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in kinds)


def photographs(folder: Path) -> list[Path]:
    """The files with a suffix of a photograph in a folder and in the folders in it, in the order of their paths.

    Links to folders are not followed.

    Raises:
        InputSpecError: a folder cannot be read.
    """
    suffixes, found, waiting = image_suffixes(), list[Path](), [folder]
    while waiting:  # `Path.rglob` recurses, and ends where folders are a thousand deep
        try:
            with os.scandir(waiting.pop()) as entries:
                inside = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
        except OSError as error:
            raise InputSpecError(f"the folder {folder} cannot be read: {error.strerror}: {error.filename}") from error
        waiting += [path for path, is_folder in inside if is_folder]
        found += [path for path, is_folder in inside if not is_folder and path.suffix.lower() in suffixes]
    return sorted(path for path in found if path.is_file())


def load_image(path: Path | str) -> Image.Image:
    """The photograph in RGB, 8 bits a channel, turned upright as its EXIF orientation says.

    What the file is gets decided by its content. Transparency is dropped and the first frame of an animation is
    taken, as model pipelines do.

    Raises:
        InputSpecError: The file is missing or not a regular one, is in none of `FORMATS`, is damaged, has more than
            2^28 bytes or more than 2^28 / 3 pixels, or has more than 8 bits a channel (Pillow would clip those).
    """
    with open_input(path, "the image", LARGEST_PHOTOGRAPH) as file:
        return decode_image(file, path)


def decode_image(file: BinaryIO, name: Path | str) -> Image.Image:
    """The photograph in an open file, as `load_image` reads it.

    Raises:
        InputSpecError: as `load_image`, with this name.
    """
    try:
        mode, upright = _decoded(file)
    except UnidentifiedImageError as error:
        known = ", ".join(FORMATS)
        raise InputSpecError(
            f"the image {name} cannot be read: it is damaged, or none of {known}"
            + ("; arrays are explained in Python: relcompile.load(FILE)" if Path(name).suffix == ".npy" else "")
        ) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise InputSpecError(f"the image {name} cannot be read: {error}") from error
    if mode.startswith(("I", "F")):
        raise InputSpecError(f"the image {name} has more than 8 bits a channel (mode {mode}); save it with 8 bits")
    return upright


def _decoded(file: BinaryIO) -> tuple[str, Image.Image]:
    """The mode of the picture in the file, and the picture, upright and in RGB."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about metadata that is damaged, and about sizes, which are checked here
        with Image.open(file, formats=FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(
                    f"{image.width} x {image.height} pixels are more than the {_MOST_PIXELS:,} that are read"
                )
            ImageOps.exif_transpose(image, in_place=True)
            return image.mode, image.convert("RGB")


def preprocess(
    image: Image.Image, preprocessing: Preprocessing, height_width: tuple[int, int]
) -> tuple[NDArray[np.float32], Image.Image]:
    """The model's input, and the part of the photograph that the model sees: `view_of`, and `normalise` of it."""
    view = view_of(image.convert("RGB"), preprocessing, height_width)
    return normalise(view, preprocessing), view


def view_of(image: Image.Image, preprocessing: Preprocessing, height_width: tuple[int, int]) -> Image.Image:
    """The part of an RGB photograph that the model sees, (H, W) in RGB.

    Sizes round as those of torchvision's `Resize` and `CenterCrop` do. If neither is asked for, the
    whole photograph is resized to `height_width`, whatever its aspect ratio.

    Raises:
        InputSpecError: The photograph is smaller than the crop, the result is not `height_width`, or that is
            more than 2^28 / 3 pixels.
    """
    height, width = height_width
    if height * width > _MOST_PIXELS:
        raise InputSpecError(f"the model takes {width}x{height} pixels, more than the {_MOST_PIXELS:,} that are made")
    view, resampling = image, _RESAMPLING[preprocessing.interpolation]
    if preprocessing.resize is None and preprocessing.crop is None:
        view = view.resize((width, height), resampling)
    if preprocessing.resize is not None:
        view = _resize_shorter_side(view, preprocessing.resize, resampling)
    if preprocessing.crop is not None:
        view = _centre_crop(view, preprocessing.crop)
    if view.size != (width, height):
        raise InputSpecError(
            f"resize={preprocessing.resize} and crop={preprocessing.crop} make the "
            f"{image.width}x{image.height} photograph {view.width}x{view.height} (width x height), but the "
            f"model takes {width}x{height}; correct the preprocessing, or crop the photograph"
        )
    return view


def normalise(view: Image.Image, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """An RGB picture (H, W) -> (1, 3, H, W), channels in the order of `preprocessing`; (1, 1, H, W) if that is grey."""
    grey = len(preprocessing.mean) == 1
    pixels = np.asarray(view.convert("L"), np.float32)[..., None] if grey else np.asarray(view, np.float32)
    pixels = pixels[..., ::-1] if preprocessing.channels == "BGR" else pixels
    normalised = pixels / np.float32(preprocessing.scale) - np.array(preprocessing.mean, np.float32)
    normalised /= np.array(preprocessing.std, np.float32)  # (H, W, channels)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1)[None])


def region(image: Image.Image, preprocessing: Preprocessing) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what the model sees, in the photograph's own pixels."""
    if preprocessing.crop is None:
        return (0, 0, *image.size)
    shrunk = 1.0 if preprocessing.resize is None else preprocessing.resize / min(image.size)
    side = min(round(preprocessing.crop / shrunk), *image.size)
    left, top = ((length - side) // 2 for length in image.size)
    return left, top, left + side, top + side


def _resize_shorter_side(image: Image.Image, side: int, resampling: Image.Resampling) -> Image.Image:
    """The image with its shorter side `side` pixels long and its aspect ratio kept."""
    shorter = min(image.size)
    if shorter == side:
        return image
    # The factor comes first and the division truncates, as torchvision has it.
    size = [side if length == shorter else int(side * length / shorter) for length in image.size]
    if size[0] * size[1] > _MOST_PIXELS:
        raise InputSpecError(
            f"the photograph is {image.width}x{image.height} pixels, too narrow for resize={side}: it would become "
            f"{size[0]}x{size[1]}; crop the photograph"
        )
    return image.resize((size[0], size[1]), resampling)


def _centre_crop(image: Image.Image, side: int) -> Image.Image:
    """The square of `side` pixels in the centre of the image."""
    if min(image.size) < side:
        raise InputSpecError(
            f"the photograph is {image.width}x{image.height} pixels, too small to cut {side}x{side} from its "
            "centre; give a larger photograph or a preprocessing that resizes"
        )
    left, top = (round((length - side) / 2) for length in image.size)
    return image.crop((left, top, left + side, top + side))
