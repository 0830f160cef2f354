"""A folder that any file server can serve: page, explainer, and the runtime that the browser runs it with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from relcompile.errors import ExportError, InputSpecError
from relcompile.files.paths import atomic_path, keep_inputs, make_folder
from relcompile.metadata import Metadata
from relcompile.pictures.photographs import Photographs
from relcompile.runtime.production import ProductionExplainer, load

RUNTIME: Final = "onnxruntime-web@1.30.0"
RUNTIME_FILES: Final = {
    "ort.wasm.bundle.min.mjs": "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
"""What of the npm package the page needs, with SHA-256: no other files are taken."""
PAGE: Final = Path(__file__).with_name("page")


def write_site(explainer: Path, folder: Path, runtime: Path | None = None) -> None:
    """Write the page of an explainer; files of these names in the folder are replaced.

    Args:
        explainer: The .onnx file.
        folder: Where to; it is made.
        runtime: A folder with `RUNTIME_FILES`, node_modules/onnxruntime-web/dist; None: npm fetches the package.

    Raises:
        InputSpecError: the explainer takes something other than one photograph and a class.
        ExportError: there is no runtime of this version, or the folder cannot be written.
    """
    loaded = load(explainer, device="cpu")
    told = json.dumps(description(loaded), indent=1)
    beside = {} if loaded.weights is None else {loaded.weights.name: loaded.weights}
    with _runtime(runtime) as found:
        sources = {path.name: path for path in sorted(PAGE.iterdir()) if path.is_file()}
        sources |= {"explainer.onnx": explainer, **beside, **{f"runtime/{name}": path for name, path in found.items()}}
        keep_inputs([explainer, loaded.weights], [folder / name for name in sources])
        make_folder(folder / "runtime")
        for name, path in sources.items():
            with atomic_path(folder / name) as temporary:
                shutil.copyfile(path, temporary)
    with atomic_path(folder / "explainer.json") as temporary:
        temporary.write_text(told, encoding="utf-8")


def description(explainer: ProductionExplainer) -> dict[str, Any]:
    """What the page has to know.

    Raises:
        InputSpecError: the explainer takes something that the page cannot give.
    """
    metadata = explainer.metadata
    _require_simple(metadata)
    photographs = Photographs.of(metadata)
    target = next((record.name for record in explainer.inputs if record.name != metadata.inputs[0].name), None)
    return {
        "title": " · ".join(metadata.name),
        "weights": None if explainer.weights is None else explainer.weights.name,
        "input": metadata.inputs[0].name,
        "target": target,
        "takesClass": target is not None,
        "index": metadata.target.index,
        "output": metadata.explained,
        "relevance": metadata.relevance[0],
        "classes": metadata.target.classes,
        "classNames": metadata.class_names,
        "channels": len(photographs.preprocessing.mean),
        "height": photographs.height,
        "width": photographs.width,
        "preprocessing": dataclasses.asdict(photographs.preprocessing),
    }


def _require_simple(metadata: Metadata) -> None:
    """One photograph in, scores and one map of its pixels out."""
    target = metadata.target
    problems = {
        "it takes a relevance seed": target.takes_seed,
        "it has several targets": target.questions is not None,
        "it has no classes": target.classes is None,
        "its relevance is of a layer": metadata.at is not None,
        "it takes a reference": metadata.reference_input is not None,
        "it takes masks": bool(metadata.masks),
        "it takes noise": bool(metadata.noise),
        "its input is not float32": metadata.inputs[0].dtype != "float32",
        "its relevance is float16": metadata.output_dtype is not None,
    }
    found = [problem for problem, there in problems.items() if there]
    if found:
        raise InputSpecError(f"the page cannot show this explainer: {', '.join(found)}")


@contextmanager
def _runtime(given: Path | None) -> Generator[dict[str, Path]]:
    """The files of the runtime by name, checked."""
    if given is not None:
        yield {name: _checked(given / name) for name in RUNTIME_FILES}
        return
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--pack-destination", folder, RUNTIME]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            why = getattr(error, "stderr", "") or error
            raise ExportError(
                f"npm cannot fetch {RUNTIME} ({str(why).strip()[-200:]}); install it elsewhere, and give its folder "
                "dist with --runtime"
            ) from error
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as archive:
            members = [archive.getmember(f"package/dist/{name}") for name in RUNTIME_FILES]
            archive.extractall(folder, members, filter="data")
        yield {name: _checked(Path(folder, "package", "dist", name)) for name in RUNTIME_FILES}


def _checked(path: Path) -> Path:
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}; it should be of {RUNTIME}") from error
    if found != RUNTIME_FILES[path.name]:
        raise ExportError(f"{path} is not that of {RUNTIME}: its SHA-256 is {found}")
    return path
