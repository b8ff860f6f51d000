"""README.md of an exported model: what it was trained on, how good it is, its limits, how to use it."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mxnet.gluon import HybridBlock

from gluon_ft.data.images.preprocessing import Preprocessing
from gluon_ft.errors import escaped
from gluon_ft.models.conversion import torch_network
from gluon_ft.weights import model_folder

_MOST_CLASSES = 50
_FILES = {
    model_folder.SYMBOL: "MXNet's graph, input `data`", model_folder.PARAMETERS: "MXNet's parameters",
    f"{model_folder.PARAMETERS}.features": "by which gluon_ft tells images unlike those of the training",
    model_folder.CLASSES: "class names in the order of the outputs, one a line",
    model_folder.PREPROCESSING: "how an image becomes the input, and the output probabilities",
    model_folder.ONNX: "ONNX, from pixels to probabilities: preprocessing and softmax are inside",
    model_folder.ONNX_LOGITS: "ONNX, from the prepared input to the network's output",
    model_folder.ONNX_INT8: "as model.onnx, in 8-bit integers: faster, and a little less exact",
    model_folder.SAFETENSORS: "the parameters for {network}, in PyTorch",
    model_folder.CERTIFICATE: "the proof that ONNX Runtime answers as MXNet does",
    model_folder.MANIFEST: "versions, hashes, where the model comes from",
}


def text(manifest: dict[str, Any], net: HybridBlock, names: Sequence[str], proof: dict[str, Any] | None) -> str:
    """The README.

    Parameters
    ----------
    manifest : dict
        Contents of manifest.json; any of `run`, `data`, `measures`, `calibration` may be None.
    net : HybridBlock
        With `classes`, `preprocessing` and `temperature`.
    names : sequence of str
        The files in the folder.
    proof : dict or None
        Contents of certificate.json.
    """
    parts = [_head(manifest, net), _data(manifest), _measures(manifest), _limits(manifest, net), _proof(proof),
             _weights(manifest), _input(net), _use(net, names), _list_of_files(names, manifest)]
    return "\n\n".join(part for part in parts if part) + "\n"


def steps(wanted: Preprocessing) -> list[str]:
    """In words, what is done to a decoded image."""
    size = wanted.size
    found = [] if wanted.resize is None else [f"resize the shorter edge to {wanted.resize} pixels, the longer one "
                                              f"rounded down, {wanted.interpolation}"]
    found.append(f"cut out the central {size} x {size} pixels")
    found.append({"rgb": "channels in the order red, green, blue", "bgr": "channels in the order blue, green, red",
                  "gray": "one grey channel"}[wanted.channel_order])
    found.append(f"(value / {wanted.scale:g} - mean) / std with mean {_numbers(wanted.mean)} and std "
                 f"{_numbers(wanted.std)}, a number a channel")
    found.append(f"float32 (n, {wanted.channels}, {size}, {size})")
    return [*found, "rotate by 180 degrees"] if wanted.rotate180 else found


def output_steps(wanted: Preprocessing, temperature: float | None) -> list[str]:
    """In words, what is done to the network's output."""
    found = ["average the outputs for the image and its mirror image"] if wanted.mirror else []
    return [*found, *([f"divide by the temperature {temperature:.6g}"] if temperature is not None else []), "softmax"]


def _head(manifest, net) -> str:
    network, made = manifest["network"], manifest["gluon_ft"]
    shown = ", ".join(map(_plain, net.classes[:_MOST_CLASSES])) + (", ..." if len(net.classes) > _MOST_CLASSES else "")
    run = manifest.get("run") or {}
    of = f" of the run '{_plain(run['name'])}'" if run.get("name") else ""
    return (f"# {_plain(network['backbone'])}: {len(net.classes)} classes\n\n"
            f"An image classifier{of}, exported by gluon_ft {made['version']} on {manifest['date'][:10]}.\n\n"
            f"Classes: {shown}")


def _data(manifest) -> str:
    counts = (manifest.get("data") or {}).get("images")
    if not counts:
        return "## Data\n\nNot known: the model was not exported from the folder of its run."
    return "## Data\n\n" + _table(["part", "images"], [[_plain(name), count] for name, count in counts.items()])


def _measures(manifest) -> str:
    found, calibration = manifest.get("measures") or {}, manifest.get("calibration") or {}
    rows = []
    if _is_number(found.get("accuracy")):
        low, high = found.get("interval") or (None, None)
        between = f" ({low:.1%} to {high:.1%} in 95 of 100 cases)" if _is_number(low) and _is_number(high) else ""
        rows.append(["accuracy", f"{found['accuracy']:.1%}{between}"])
    for key, words in (("mean_class_accuracy", "mean accuracy of classes"), ("macro_f1", "macro F1"),
                       ("log_loss", "log loss"), ("auc", "AUC")):
        if _is_number(found.get(key)):
            rows.append([words, f"{found[key]:.3f}"])
    if not rows:
        return "## Measures\n\nNone were recorded; `gluon-ft evaluate` measures the model on labelled images."
    before, after = calibration.get("ece_before"), calibration.get("ece_after")
    calibrated = f"\n\nExpected calibration error: {before:.3f} before and {after:.3f} after the temperature." \
        if _is_number(before) and _is_number(after) else ""
    images = f"On {found['images']} validation images, which also chose the epoch:\n\n" \
        if _is_number(found.get("images")) else ""
    return "## Measures\n\n" + images + _table(["measure", "value"], rows) + calibrated


def _limits(manifest, net) -> str:
    lines = ["Every image gets one of these classes, whatever it shows; a low probability is a sign of another thing, "
             "not a proof."]
    if (manifest["network"].get("extra") or {}).get("known"):
        lines.append("gluon_ft tells images that are unlike the training images (`gluon-ft predict`); MXNet and ONNX "
                     "Runtime alone do not.")
    if net.temperature is None:
        lines.append("The probabilities are not calibrated.")
    if manifest.get("measures"):
        lines.append("The measures hold for images of the same kind as the validation images: same cameras, places and "
                     "mixture of classes.")
    lines += [_plain(note) for note in manifest["network"].get("notes") or []]
    return "## Limits\n\n" + "\n".join(f"- {line}" for line in lines)


def _proof(proof) -> str:
    if proof is None:
        return ""
    rates = proof["images_per_second"]
    rows = [["images compared, from the file on disk to the class", f"{proof['images']} ({_plain(proof['source'])})"],
            ["decisions that changed", len(proof["decisions_changed"])],
            ["largest difference of a probability", f"{proof['largest_difference']:.1e}"],
            ["images/s, MXNet", rates["mxnet"]], ["images/s, ONNX Runtime", rates["onnxruntime"]],
            ["on", f"{_plain(proof['processor'])}, threads: {proof['threads']}"]]
    found = "## Proof that ONNX answers the same\n\n" + _table(["", ""], rows)
    return found + ("\n\n" + _int8(proof["int8"]) if proof.get("int8") else "")


def _int8(found) -> str:
    calibration, rates = found["calibration"], found["images_per_second"]
    rows = [["images that judge", found["images"]],
            ["images that calibrated", f"{calibration['images']} ({_plain(calibration['source'])})"]]
    for kind, own in (found["accuracy"] or {}).items():
        low, high = own["interval"]
        rows.append([f"accuracy, {kind}", f"{own['accuracy']:.1%} ({low:.1%} to {high:.1%} in 95 of 100 cases)"])
    low, high = found["loss_interval"]
    what = "accuracy" if found["accuracy"] else "decisions"
    rows += [[f"loss, points of {what}", f"{found['loss']:.2f} ({low:.2f} to {high:.2f}); {found['limit']:g} allowed"],
             ["decisions that changed", found["changed"]],
             ["mean difference of an image's probabilities", f"{found['mean_difference']:.1e}"],
             ["layers in integers", found["layers"]],
             ["layers kept in float32", ", ".join(map(_plain, found["kept"])) or "none"],
             ["images/s of the network alone, float32 and INT8", f"{rates['float32']} and {rates['int8']}"]]
    return "## INT8\n\n" + _table(["", ""], rows)


def _weights(manifest) -> str:
    found = manifest["weights"]
    if not found["source"]:
        return "## Weights\n\nTrained from random weights, or their source was not recorded."
    licence = f"licence {_plain(found['licence'])}" if found["licence"] else "their licence is not known"
    origin = f", from {_plain(found['origin'])}" if found["origin"] else ""
    return f"## Weights\n\nTrained from {_plain(found['source'])}{origin}; {licence}."


def _input(net) -> str:
    listed = [f"{i}. {step}" for i, step in enumerate([*steps(net.preprocessing),
                                                      "the network", *output_steps(net.preprocessing, net.temperature)],
                                                      1)]
    return "## From an image to probabilities\n\n" + "\n".join(listed)


def _use(net, names) -> str:
    wanted = net.preprocessing
    shape = f"(n, {wanted.channels}, {wanted.size}, {wanted.size})"
    found = ["## Use", "gluon_ft:\n\n```python\nimport gluon_ft\n\nmodel = gluon_ft.load_model(\"model/\")\n"
             "print(model.predict(\"photo.jpg\")[0].name)\n```",
             f"MXNet, with `data` prepared as above, float32 {shape}:\n\n```python\n"
             "net = mx.gluon.SymbolBlock.imports(\"model-symbol.json\", [\"data\"], \"model-0000.params\")\n"
             "# or: symbol, args, states = mx.model.load_checkpoint(\"model\", 0)\n"
             f"output = net(data){_softmax(net)}\n```"]
    if model_folder.ONNX in names:
        pixels = f"(n, {wanted.size}, {wanted.size}, {wanted.channels})"
        found.append(f"ONNX Runtime, with the resized and cropped images as uint8 {pixels}, "
                     f"{'grey' if wanted.channels == 1 else 'RGB'}:\n\n```python\n"
                     "session = onnxruntime.InferenceSession(\"model.onnx\")\n"
                     "probabilities, = session.run(None, {\"image\": images})\n```")
    return "\n\n".join(found)


def _softmax(net) -> str:
    if net.preprocessing.mirror:
        return "  # for the image and for its mirror image: see above for the mean of both"
    return f"\nprobabilities = mx.nd.softmax(output{'' if net.temperature is None else f' / {net.temperature!r}'})"


def _list_of_files(names, manifest) -> str:
    named = {"network": torch_network(manifest["network"]["backbone"])} if model_folder.SAFETENSORS in names else {}
    rows = [[f"`{name}`", words.format(**named)] for name, words in _FILES.items()
            if name in (*names, model_folder.MANIFEST)]
    return "## Files\n\n" + _table(["file", "what"], rows)


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _plain(value: Any) -> str:
    """Text from a run or a card, which anybody may have written, on one line and without markup."""
    return escaped(value).replace("<", "&lt;").replace("`", "'").replace("[", "\\[")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
