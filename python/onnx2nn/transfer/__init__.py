"""Weights of an ONNX model for a module that somebody already has."""
