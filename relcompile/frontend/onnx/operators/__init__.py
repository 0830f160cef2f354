"""What ONNX operators compute, in torch: one function each. `relcompile.frontend.onnx.table` says which is which."""
