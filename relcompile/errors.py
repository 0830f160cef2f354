"""Every public exception of relcompile, except those of the passes (`passes.errors`)."""


class RelcompileError(Exception):
    """Root of all errors that relcompile raises on purpose."""


class ModelFileError(RelcompileError):
    """A model file cannot be read, or cannot be read safely."""


class CaptureError(RelcompileError):
    """A model cannot be captured as one static graph."""


class InputSpecError(RelcompileError):
    """A description of the model's inputs cannot be understood or does not fit the model."""


class CompositeError(RelcompileError):
    """A rule name, rule parameter or layer pattern is not known or matches nothing."""


class TargetError(RelcompileError):
    """A target does not exist in the model's output."""


class ExportError(RelcompileError):
    """An explainer cannot be written, or the written file does not agree with PyTorch."""


class RuntimeUnavailableError(RelcompileError):
    """ONNX Runtime, or the device that was asked for, is missing."""


class OverloadedError(RelcompileError):
    """More requests wait for an explainer than may wait."""


class MetadataError(RelcompileError, ValueError):
    """What an explainer is to say about itself contradicts itself."""


class ExplainerFileError(RelcompileError):
    """A file is not an explainer that relcompile wrote."""


class CalibrationError(RelcompileError):
    """Calibration data or a calibration file cannot be read, or belongs to another model."""


class EvaluationError(RelcompileError):
    """Explanations cannot be evaluated as asked, or a file of results cannot be read."""
