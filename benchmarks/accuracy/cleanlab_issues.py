"""cleanlab's side of label_errors.py, for a Python that has cleanlab: no gluon_ft, no MXNet.

    python cleanlab_issues.py arrays.npz

The file has `probabilities` (n, classes) and `labels` (n,). Prints cleanlab's version, and the positions of the labels
that it suspects, the most probable errors first, as JSON.
"""
from __future__ import annotations

import json
import sys

import cleanlab
import numpy as np
from cleanlab.filter import find_label_issues


def main() -> None:
    with np.load(sys.argv[1]) as arrays:
        found = find_label_issues(arrays["labels"], arrays["probabilities"], n_jobs=1,
                                  return_indices_ranked_by="self_confidence")
    print(json.dumps({"version": cleanlab.__version__, "suspects": [int(i) for i in found]}))


if __name__ == "__main__":
    main()
