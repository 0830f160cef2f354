"""An explainer as a static page: everything is computed in the browser, by onnxruntime-web. Needs no torch."""
