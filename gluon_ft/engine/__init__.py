"""What runs a network's graph: MXNet (fused, rewritten, lower precisions) or ONNX Runtime, and which is faster."""
