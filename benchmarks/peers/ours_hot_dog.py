"""Our side of the comparison with d2l_hot_dog.py and torch_hot_dog.py: the same options, through gluon_ft alone.

    python benchmarks/peers/ours_hot_dog.py '{"data": "../shared/data/hotdog", "batch": 32, "epochs": 5, "lr": 0.01}'

"strategy": "everything" (default) trains all layers as the published procedure; "features" is what the library advises
for fewer than a thousand images: the features once, then a linear classifier on them. The images are decoded once.
"precision": "float32" (default) or "bfloat16".
"""
import json
import resource
import sys
import time


def main(options):
    import gluon_ft
    from gluon_ft import loaders

    gluon_ft.seed_all(options.get("seed", 0))
    weights = options.get("pretrained")
    net = gluon_ft.fine_tune_net(options["backbone"], 2, pretrained=weights or False, lr_mult=10)
    how = net.preprocessing if weights else gluon_ft.Preprocessing()
    everything = options.get("strategy", "everything") == "everything"
    sets = {part: loaders.make_loader(f"{options['data']}/{part}", preprocessing=how,
                                      train=everything and part == "train", batch_size=options["batch"],
                                      seed=options.get("seed", 0),
                                      cache="memory" if options.get("cache", True) and everything else None)
            for part in ("train", "test")}
    found = _everything(net, sets, options) if everything else _features(net, sets)
    print(json.dumps({**found, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


def _everything(net, sets, options):
    import gluon_ft

    config = gluon_ft.TrainConfig(epochs=options["epochs"], lr=options["lr"], momentum=0.0,
                                  wd=options.get("wd", 1e-3), top_k=0, seed=options.get("seed", 0),
                                  precision=options.get("precision", "float32"))
    begun, history, evaluations = time.perf_counter(), [], []

    def note(record):
        history.append({"seconds": time.perf_counter() - begun, "accuracy": record["validation_accuracy"]})
    result = gluon_ft.fit(net, sets["train"], sets["test"], config, on_epoch=note)
    total = time.perf_counter() - begun
    for _ in range(2):
        start = time.perf_counter()
        gluon_ft.evaluate(net, sets["test"])
        evaluations.append(time.perf_counter() - start)
    steps = options["epochs"] * len(sets["train"])
    # `fit` times an epoch with its evaluation; that is measured again by itself and taken off.
    return {"steps": steps, "seconds_per_step": (total - options["epochs"] * min(evaluations)) / steps,
            "history": history, "epochs": len(result.history)}


def _features(net, sets):
    from gluon_ft.evaluation import linear
    from gluon_ft.training.feature_cache import features

    begun = time.perf_counter()
    train, test = features.extract(net, sets["train"]), features.extract(net, sets["test"])
    fitted = linear.fit(*train, "svm", seed=0)
    accuracy = float((fitted.logits(test[0]).argmax(1) == test[1]).mean())
    return {"steps": 0, "seconds_per_step": None,
            "history": [{"seconds": time.perf_counter() - begun, "accuracy": accuracy}]}


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
