"""Models as files for other programs: PyTorch, ONNX, a web page."""
