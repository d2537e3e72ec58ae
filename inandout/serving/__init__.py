"""A trained classifier for use: served over HTTP by MLflow, or as an ONNX file."""
