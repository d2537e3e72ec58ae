"""Deployment of a trained classifier: MLflow serving, the model registry and ONNX export."""
