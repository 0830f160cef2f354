"""`Explainer`: the compiled graph, and the door to its files."""

from __future__ import annotations

from pathlib import Path

from relcompile.backend.compiled import Compiled
from relcompile.backend.onnx_file import save
from relcompile.backend.source import python_source


class Explainer(Compiled):
    """A compiled explainer that can be written to a file; how it is called, `Compiled` says."""

    def python(self) -> str:
        """The graph as Python source, operator by operator under the names of the layers, which can be read and run.

        Raises:
            ExportError: it cannot be written as Python.
        """
        return python_source(self)

    def save(self, path: str | Path, *, pair: bool = False) -> None:
        """Write the explainer to `path`: .onnx, checked against this module in ONNX Runtime; or .pt2, for PyTorch.

        `torch.export.load(path).module()` runs a .pt2 file as this module. Weights of more than two gigabytes lie
        beside an .onnx file, in NAME.<checksum>.weights.

        Args:
            path: where; the suffix says the format.
            pair: of an .onnx file also write the prediction alone, NAME.predict.onnx, with the same weights beside it.

        Raises:
            ExportError: the suffix is not known, the file cannot be written, or it does not agree.
        """
        save(self, Path(path), pair=pair)
