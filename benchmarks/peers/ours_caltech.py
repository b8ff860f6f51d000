"""Our side of the comparison with how_to_caltech.py: the same options, through gluon_ft.symbolic and its loaders.

    python benchmarks/peers/ours_caltech.py '{"prefix": "net", "epoch": 0, "layer": "flatten0", ...}'
"""
import json
import resource
import sys
import time


def main(options):
    import mxnet as mx

    import gluon_ft
    from gluon_ft import loaders, symbolic

    seed = options.get("seed", 0)
    gluon_ft.seed_all(seed)
    symbol, args, aux = symbolic.load_checkpoint(options["prefix"], options["epoch"])
    new, kept = gluon_ft.get_fine_tune_model(symbol, args, options["classes"], options["layer"])
    how = gluon_ft.Preprocessing(mean=tuple(options["mean"]), std=tuple(options["std"]), scale=1.0,
                                 size=options.get("size", 224))
    sets = {part: loaders.make_loader(options[part], preprocessing=how, train=part == "train",
                                      batch_size=options["batch"], seed=seed, cache="memory",
                                      augment="im2rec" if part == "train" else None)
            for part in ("train", "val")}
    config = gluon_ft.TrainConfig(epochs=options["epochs"], lr=options["lr"], momentum=options.get("momentum", 0.0),
                                  wd=0.0, top_k=0, seed=seed)
    begun, history = time.perf_counter(), []

    def note(record):
        history.append({"seconds": time.perf_counter() - begun, "accuracy": record["validation_accuracy"]})
    symbolic.fit(new, kept, aux, sets["train"], sets["val"], options["batch"], config=config, on_epoch=note,
                 frozen=[f"^{name}$" for name in options.get("frozen", [])],
                 initializer=mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2))
    steps = options["epochs"] * len(sets["train"])
    # With the validation after each epoch in it, here and in how_to_caltech.py.
    print(json.dumps({"steps": steps, "seconds_per_step": history[-1]["seconds"] / steps, "history": history,
                      "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
