"""Forward passes by each of our engines, and by ONNX Runtime alone, OpenVINO and PyTorch, in turn on the same cores.

    GLUON_FT_TORCH_PYTHON=/path/to/python python benchmarks/speed/inference.py    # five minutes on two cores

ResNet-18 and -50 (v1b, torchvision's), MobileNetV2 and EfficientNet-Lite0 with random weights, 224 px, batch 16,
float32. `plain` is the network as MXNet runs it, `fused` and `onnxruntime` are what `engine.fused` makes of it, from
NDArray to NDArray. The others run in a process of their own, which waits meanwhile: OpenVINO and ONNX Runtime on the
same ONNX graph, PyTorch on its own network, channels-last and compiled. The Python that is named needs torch, openvino
and onnxruntime; what it lacks is left out and said. Ratios are medians of the rounds', images/s of ours / theirs.

Wanted: our onnxruntime at least 0.97 of ONNX Runtime alone, the better of our engines ahead of all others. Rows go to
benchmarks/results/inference.csv. Exit status 1 where that is missed.
"""
from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the project's folder
import gluon_ft  # noqa: F401  isort: skip  (prepares the import of mxnet)

import click

from benchmarks import runner
from benchmarks.speed.timing import OtherProcess, network_and_batch, seconds
from gluon_ft.engine import blocks, fused
from gluon_ft.engine.onnx_operators import convert
from gluon_ft.models import tracing
from gluon_ft.runtime.gluon_internals import array_of

# Ours -> PyTorch's, in training_torch.py.
NETWORKS = {"resnet18_v1b": "resnet18", "resnet50_v1b": "resnet50", "mobilenetv2_1.0": "mobilenetv2",
            "efficientnet_lite0": "efficientnet_lite0"}
BATCH, SIZE = 16, 224
SAME, AHEAD = 0.97, 1.0
ALONE = "onnxruntime"  # the others' ways are named as their side says


def our_ways(net, x) -> dict:
    """Name -> function that runs a batch."""
    forms = {engine: fused.forward_only(net, input_shape=x.shape, engine=engine)
             for engine in ("mxnet", "onnxruntime")}
    ways = {"plain": net, "fused": forms["mxnet"], "onnxruntime": forms["onnxruntime"]}
    return {name: run for name, run in ways.items() if name == "plain" or run.form == name}


def write_onnx(net, x, path) -> None:
    """The graph that `engine.onnx_runtime` runs, as a file."""
    symbol = tracing.symbol(net)
    with blocks.quiet():
        graph = convert(symbol, x.shape, blocks.shapes(net, symbol, x.shape))
        model = graph.model({name: array_of(parameter) for name, parameter in net.collect_params().items()})
    Path(path).write_bytes(model.SerializeToString())


def measure(name: str, repeats: int, batches: int) -> tuple[list[dict], list[str]]:
    """Rows of one network, and what was missed."""
    net, x, _, _ = network_and_batch(name, BATCH, SIZE)
    ours = our_ways(net, x)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        write_onnx(net, x, path)
        others = OtherProcess("inference_peers.py", NETWORKS[name], str(BATCH), str(SIZE), path,
                              needs="torch, openvino and onnxruntime")
        for way, reason in others.about["failed"].items():
            click.echo(f"{name}: without {way} ({reason})", err=True)
        calls = {("ours", way): lambda _, run=run: seconds(lambda: [run(x) for _ in range(batches)])
                 for way, run in ours.items()}
        calls.update({("others", way): lambda _, way=way: others(way, batches) for way in others.about["ways"]})
        try:
            times = runner.in_turn(calls, repeats, name, warm_up=1)
        finally:
            others.close()
    versions = ", ".join(f"{package} {version}" for package, version in others.about["versions"].items())
    settings = f"{name} {SIZE} px batch {BATCH}, forward, {versions}"
    rows = [runner.row("inference", settings, " ".join(way), "images/s", [batches * BATCH / t for t in values])
            for way, values in times.items()]
    best = min((way for way in times if way[0] == "ours"), key=lambda way: statistics.median(times[way]))
    pairs = [(best, way, SAME if way[1] == ALONE else AHEAD) for way in times if way[0] == "others"]
    if ("ours", "onnxruntime") in times and ("others", ALONE) in times and best[1] != "onnxruntime":
        pairs.append((("ours", "onnxruntime"), ("others", ALONE), SAME))
    missed = []
    for own, other, least in pairs:
        rows.append(runner.row("inference", settings, f"ours {own[1]} / {other[1]}", "ratio",
                               runner.ratios(times[other], times[own])))
        if float(rows[-1]["median"]) < least:
            missed.append(f"{settings}: {rows[-1]['quantity']} is {rows[-1]['median']}, at least {least} wanted")
    return rows, missed


@runner.command(__doc__, "inference", repeats=7)
@click.option("--batches", default=2, type=click.IntRange(1), help="Batches in a group.")
def main(repeats, batches):
    found = [measure(name, repeats, batches) for name in NETWORKS]
    return [row for rows, _ in found for row in rows], [text for _, missed in found for text in missed]


if __name__ == "__main__":
    main()
