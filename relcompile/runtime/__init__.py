"""Running a compiled explainer: numpy and ONNX Runtime only."""
