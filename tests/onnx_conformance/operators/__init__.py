"""Comparison of the embedded runtime with ONNX Runtime, operator by operator."""
