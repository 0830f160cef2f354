"""Explainers behind HTTP: the Open Inference Protocol, version 2. Needs neither torch nor onnx."""
