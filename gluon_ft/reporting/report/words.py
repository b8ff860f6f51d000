"""Results, settings and numbers in words, as a report shows them."""
from __future__ import annotations

import re
from typing import Any

from gluon_ft.reporting.environment import without_home

# Characters of a list that a report shows.
LONGEST = 400
# Details by group, in this order: beginning of the key in result.json -> what a report calls it.
DETAILS = {
    "Result": {
        "train_accuracy": "training accuracy", "validation_accuracy": "validation accuracy",
        "best_validation_accuracy": "best validation accuracy", "cross_validated_accuracy": "cross-validated accuracy",
        "measures.interval": "95 % interval of the accuracy",
        "measures.mean_class_accuracy": "mean accuracy of classes",
        "measures.macro_f1": "macro F1", "measures.log_loss": "log loss", "measures.ece": "calibration error (ECE)",
        "measures.auc": "AUC", "measures.images": "images measured on", "measures.accuracy": "accuracy measured",
        "calibration.temperature": "temperature of the probabilities",
        "calibration.log_loss_before": "log loss before calibration",
        "calibration.log_loss_after": "log loss after calibration, on held-out folds",
        "calibration.ece_before": "calibration error before calibration",
        "calibration.ece_after": "calibration error after calibration, on held-out folds",
        "cross_validation.measures.accuracy": "cross-validated accuracy of each image once",
        "cross_validation.measures.interval": "95 % interval of the cross-validated accuracy",
        "cross_validation.folds": "folds", "cross_validation.fold_accuracies": "accuracy of each fold",
        "best_epoch": "best epoch", "epochs": "epochs trained", "confusions": "most frequent confusions",
        "classifier": "linear classifier", "C": "C of the linear classifier", "seconds": "training time",
        "total_seconds": "time of the whole job"},
    "Data": {
        "images.train": "training images", "images.validation": "validation images", "images": "images",
        "classes": "classes", "features": "features an image", "audit.unreadable": "images that cannot be read",
        "audit.copies_across": "validation images that are copies of training images",
        "audit.copies_within": "pairs of copies", "audit.two_labels": "pairs of equal images with two labels",
        "audit.left_out": "images left out", "audit.excluded": "images that you left out"},
    "Network": {"backbone": "backbone", "pretrained": "pretrained weights", "strategy": "strategy"},
    "Why": {"reasons.network": "this network", "reasons.strategy": "this strategy",
            "reasons.settings": "these settings", "reasons.given": "what you asked for"},
}
_OTHER = "More"


def flatten(value: dict, prefix: str = "") -> list[tuple[str, str]]:
    """(dotted key, text) of every leaf of nested dicts, in order; lists of plain values are one leaf."""
    leaves = []
    for key, item in value.items():
        if isinstance(item, dict) and item:
            leaves += flatten(item, f"{prefix}{key}.")
        else:
            leaves.append((f"{prefix}{key}", _text(item)))
    return leaves


def details(results: dict) -> list[tuple[str, list[tuple[str, str]]]]:
    """Results in words: (group, [(label, text), ...]) in the order of `DETAILS`, what is not named there last.

    Accuracies as percent, times in seconds; the keys themselves stand in result.json.
    """
    groups: dict[str, list[tuple[str, str]]] = {group: [] for group in (*DETAILS, _OTHER)}
    flat = dict(flatten(results))
    for group, labels in DETAILS.items():
        for start, label in labels.items():
            for key in [key for key in flat if key == start or key.startswith((f"{start} ", f"{start}."))]:
                number = key[len(start):].strip(" .").replace("_", " ")
                groups[group].append((f"{label} {number}".strip(), _with_unit(key, flat.pop(key), results)))
    groups[_OTHER] = [(_words(key), _with_unit(key, text, results)) for key, text in flat.items()]
    return [(group, rows) for group, rows in groups.items() if rows]


def _words(key: str) -> str:
    """'confusion.of_two' -> 'confusion: of two'; what is no such key stays as it is."""
    return key.replace("_", " ").replace(".", ": ") if re.fullmatch(r"[\w.]+", key) else key


def _with_unit(key, text, results) -> str:
    value = results.get(key)
    if key.endswith("accuracy") and isinstance(value, (int, float)):
        return percent(value)
    return f"{text} s" if key.endswith("seconds") else text


def percent(value: float | None) -> str:
    """0.9234 -> '92.3%'; None -> 'none'."""
    return "none" if value is None else f"{100 * value:.1f}%"


def cell(value: Any, column: str) -> str:
    """A value of the table of all runs: accuracies as percent, other floats with four digits."""
    if column.endswith(("accuracy", "top5")) and (value is None or type(value) in (int, float)):
        return percent(value)
    return _text(value)


def _text(value) -> str:
    if isinstance(value, (list, tuple)):
        text = ", ".join(map(_text, value)) or "none"
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(value)} values, whole in the JSON file)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "none" if value is None or value == {} else without_home(str(value))


def duration(seconds: float) -> str:
    """30.2 -> '30 s'; 4000 -> '1 h 7 min'."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def readable(date: str | None) -> str:
    """'2026-11-20T21:12:52+00:00' -> '2026-11-20 21:12:52 UTC'."""
    return (date or "").replace("T", " ").replace("+00:00", " UTC")
