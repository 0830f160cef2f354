"""ONNX files as models: read within limits, and computed by plain torch operators, one layer a node."""
