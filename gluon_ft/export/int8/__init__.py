"""An ONNX model in 8-bit integers: how it is made, judged, and refused where it costs too much."""
