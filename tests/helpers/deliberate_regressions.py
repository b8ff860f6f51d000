"""Runs a recipe in a library that is wrong in one respect, for the tests of benchmarks/accuracy/check.py.

    python tests/helpers/deliberate_regressions.py KIND SCRIPT [OPTIONS OF THE SCRIPT]

The library's public functions are replaced before the script is run; the script itself is the real one.
"""
from __future__ import annotations

import dataclasses
import runpy
import sys
from pathlib import Path

import numpy as np

import gluon_ft
from gluon_ft.data import loader as loaders


def wrong_mean_and_std():
    """Weights say that their input is in 0..1 without mean and std."""
    right = gluon_ft.pretrained_net

    def wrong(*arguments, **options):
        net = right(*arguments, **options)
        net.preprocessing = dataclasses.replace(net.preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3)
        return net
    gluon_ft.pretrained_net = wrong


def batchnorm_not_frozen():
    """`freeze` leaves BatchNorm in training mode."""
    right = gluon_ft.freezing.freeze

    def wrong(net, batchnorm="frozen"):
        return right(net, "train")
    gluon_ft.freeze = gluon_ft.freezing.freeze = wrong
    groups = gluon_ft.freezing.apply_groups
    gluon_ft.apply_groups = gluon_ft.freezing.apply_groups = \
        lambda net, found, batchnorm="frozen", **options: groups(net, found, "train", **options)


def half_the_rate_of_the_head():
    """New outputs learn at half the rate that was asked for."""
    def halved(right):
        return lambda *arguments, lr_mult=gluon_ft.heads.LR_MULT, **options: right(*arguments, lr_mult=lr_mult / 2,
                                                                                 **options)
    for name in ("replace_output", "append_output"):
        wrong = halved(getattr(gluon_ft.heads, name))
        setattr(gluon_ft, name, wrong)
        setattr(gluon_ft.heads, name, wrong)


def shuffled_labels():
    """A tenth of the training labels change places."""
    def shuffled(labels):
        random = np.random.RandomState(0)
        chosen = random.permutation(len(labels))[:max(2, len(labels) // 10)]
        mixed = labels.copy()
        # The next chosen image's label, in an order by label, so that nearly all of these are wrong.
        chosen = chosen[np.argsort(labels[chosen], kind="stable")]
        mixed[chosen] = labels[np.roll(chosen, len(chosen) // 2)]
        return mixed

    right, array_loader = loaders.make_loader, gluon_ft.ArrayLoader

    def wrong(*arguments, train, **options):
        loader = right(*arguments, train=train, **options)
        if train:
            loader.labels = shuffled(loader.labels)
        return loader

    def wrong_arrays(data, labels, batch_size, shuffle=False, seed=0):
        return array_loader(data, shuffled(np.asarray(labels)) if shuffle else labels, batch_size, shuffle, seed)
    loaders.make_loader, gluon_ft.ArrayLoader = wrong, wrong_arrays


KINDS = {function.__name__: function for function in (wrong_mean_and_std, batchnorm_not_frozen,
                                                      half_the_rate_of_the_head, shuffled_labels)}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
    sys.argv = sys.argv[2:]
    sys.path.insert(0, str(Path(sys.argv[0]).resolve().parent))
    runpy.run_path(sys.argv[0], run_name="__main__")
