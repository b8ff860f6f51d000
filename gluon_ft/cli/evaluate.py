"""`gluon-ft evaluate`: how good a saved network is on labelled images."""
from __future__ import annotations

import click

from gluon_ft.cli import console

FEW = 10  # classes, up to which the confusion matrix is shown as a table


@click.command("evaluate", cls=console.Command)
@click.argument("model", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("--by-class", is_flag=True, help="Precision, recall and F1 of each class as well.")
@click.option("--top-k", type=click.IntRange(2), multiple=True, default=[5],
              help="Count an image as right too if its label is among the K most probable classes; may be repeated.")
@click.option("--csv", "table", type=click.Path(), metavar="FILE",
              help="Write a table of all images: file, label, prediction, probability.")
@click.option("--all-probabilities", is_flag=True, help="With --csv: a column with the probability of each class.")
@console.tta_option
@click.option("--mirror/--no-mirror", default=None, show_default=False,
              help="With --tta: whether mirror images are among the views.  [default: as the model's preprocessing "
                   "says; wrong for text, digits and whatever has a left and a right]")
@click.option("--root", type=click.Path(), help="Folder that the paths of a list begin at.  [default: the list's own]")
@console.folder_options
@click.option("--batch-size", type=click.IntRange(1), default=32, help="Images computed at a time.")
@console.engine_option
@console.devices_option()
@console.wide_option
@console.json_option
def evaluate(model, data, by_class, top_k, table, all_probabilities, tta, mirror, root, labels_from,
             classes_are_folders, batch_size, devices, wide, as_json):
    """Measure a saved MODEL on DATA, labelled images that it was not trained on.

    MODEL is the folder of a run or of an export, or a .params file with its card (.params.json) beside it. DATA is a
    folder with one subfolder a class, a list (.lst, .csv, .tsv, .txt) or packed records (.rec). The names of the
    classes decide which label is which. Images of classes that the network does not know are counted and not scored.

    An image that cannot be read is reported in one line on standard error, and the others are evaluated. Exit status:
    0 if every image was evaluated, 1 if some could not be read, 2 for an error.

    \b
    gluon-ft evaluate runs/photos val/
    gluon-ft evaluate runs/photos val/ --by-class --csv predictions.csv
    gluon-ft evaluate runs/photos/best.params val.rec --tta 4
    """
    from gluon_ft.evaluation.evaluate import evaluate_model
    from gluon_ft.io import atomic
    from gluon_ft.runtime.devices import contexts

    if all_probabilities and table is None:
        raise click.UsageError("--all-probabilities is for the table of --csv")
    if mirror is not None and tta is None:
        raise click.UsageError("--mirror and --no-mirror are for the views of --tta")
    console.check_model(model)
    if table is not None:
        atomic.check_writable(table)
    found = evaluate_model(model, data, tta=tta, mirror=mirror, top_k=top_k, batch_size=batch_size,
                           ctx=contexts(devices), root=root, labels_from=labels_from,
                           classes_are_folders=classes_are_folders)
    _say_left_out(found)
    console.show(_rows(found), wide=wide, whole=["measure"])
    _show_classes(found.measures, by_class, wide)
    if table is not None:
        found.write_csv(table, all_probabilities)
        console.say(f"predictions: {table}")
    console.emit({"command": "evaluate", "model": str(model), "data": str(data), "csv": table, **found.to_dict()},
                 as_json)
    return console.EXIT_FAILURE if found.unreadable else 0


def _say_left_out(found):
    for path, reason in found.unreadable.items():
        console.say(f"not evaluated: {path}: {reason}", err=True)
    if found.unreadable:
        console.say(f"{len(found.unreadable)} image{'s' * (len(found.unreadable) > 1)} could not be read")
    if found.unknown:
        named = ", ".join(f"{name} ({count})" for name, count in found.unknown.items())
        console.say(f"not scored: {sum(found.unknown.values())} images of classes that the network does not know: "
                    f"{named}")
    if found.missing:
        some = ", ".join(found.missing[:8]) + ", ..." * (len(found.missing) > 8)
        console.say(f"no images of {len(found.missing)} of the network's classes: {some}")


def _rows(found) -> list[dict]:
    """The table of all measures; with test-time augmentation a column without and one with it."""
    def values(one, seconds):
        return {"accuracy": one.accuracy, "accuracy, 95 % interval": "{:.3f} to {:.3f}".format(*one.interval),
                **{f"top-{k} accuracy": share for k, share in one.top_k.items()},
                "mean accuracy of classes": one.mean_class_accuracy, "macro F1": one.averages["macro"]["f1"],
                "log loss": one.log_loss, "calibration error (ECE)": one.ece,
                **({} if one.auc is None else {"AUC": one.auc}),
                "right": f"{one.correct} of {one.images}", "seconds": f"{seconds:.1f}"}

    last = values(found.measures, found.seconds)
    if found.tta is None:
        return [{"measure": name, "value": value} for name, value in last.items()]
    first = values(found.tta["without"], found.tta["seconds_without"])
    column = f"{found.tta['views']} views"
    return [{"measure": name, "plain": first[name], column: value} for name, value in last.items()]


def _show_classes(measures, by_class, wide):
    from gluon_ft.evaluation.measures import confusions_of

    if by_class:
        console.say("")
        console.show(measures.by_class, wide=wide, whole=["class"])
    console.say("")
    if len(measures.classes) <= FEW:
        console.say("label (row), prediction (column):")
        console.show([{"": name, **dict(zip(measures.classes, map(int, row)))}
                      for name, row in zip(measures.classes, measures.confusion)], wide=wide)
    else:
        console.say("most frequent confusions:", *(f"  {line}" for line in confusions_of(
            measures.confusion, measures.classes, 10) or ["none"]))
