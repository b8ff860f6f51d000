"""The others' side of benchmarks/speed/inference.py: forward passes on request; needs torch, openvino, onnxruntime.

    python benchmarks/speed/inference_peers.py NETWORK BATCH SIZE MODEL.onnx

Says first which ways it has, as JSON with the versions; then reads lines from standard input, each the name of a way
and a number of batches, and answers with the seconds. OpenVINO and ONNX Runtime run MODEL.onnx; PyTorch the network of
training_torch.py, where that has it: channels-last, and compiled. What is not installed, or fails, is left out.
"""
import importlib
import os
import sys

import answers
import numpy as np

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))


def onnx_runtime(path, batch):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"data": batch})


def openvino(path, batch):
    import openvino as ov

    model = ov.Core().read_model(path)
    model.reshape(list(batch.shape))
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_NUM_THREADS": THREADS, "PERFORMANCE_HINT": "LATENCY"})
    request = compiled.create_infer_request()
    return lambda: request.infer({0: batch})


def torch_ways(network, batch):
    import torch
    import training_torch

    torch.set_num_threads(THREADS)
    if not hasattr(training_torch, network):
        return {}
    net = getattr(training_torch, network)().eval().to(memory_format=torch.channels_last)
    x = torch.from_numpy(batch).contiguous(memory_format=torch.channels_last)

    def run(which):
        def forward():
            with torch.inference_mode():
                which(x)
        return forward

    return {"torch channels-last": run(net), "torch compiled": run(torch.compile(net))}


def main(network, batch, size, path):
    data = np.random.RandomState(0).uniform(-1, 1, (int(batch), 3, int(size), int(size))).astype(np.float32)
    ways, failed, versions = {}, {}, {}
    for name, make in (("onnxruntime", lambda: {"onnxruntime": onnx_runtime(path, data)}),
                       ("openvino", lambda: {"openvino": openvino(path, data)}),
                       ("torch", lambda: torch_ways(network, data))):
        try:
            versions[name] = importlib.import_module(name).__version__
            found = make()
        except Exception as error:
            failed[name] = str(error).splitlines()[0] if str(error) else type(error).__name__
            continue
        for way, run in found.items():
            try:
                run()
                ways[way] = run
            except Exception as error:
                failed[way] = str(error).splitlines()[0] if str(error) else type(error).__name__
    answers.serve({"ways": list(ways), "failed": failed, "versions": versions}, ways.__getitem__)


if __name__ == "__main__":
    main(*sys.argv[1:])
