"""Models as files that need nothing of this package: `torch.export` programs and ONNX, with scaling inside."""
