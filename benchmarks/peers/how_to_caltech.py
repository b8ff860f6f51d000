"""Fine-tuning as MXNet's how-to describes it: a symbol cut at its last features, Module.fit, ImageRecordIter.

    python benchmarks/peers/how_to_caltech.py '{"prefix": "net", "epoch": 0, "layer": "flatten0", "train": "train.rec",
        "val": "val.rec", "classes": 20, "batch": 16, "epochs": 2, "lr": 0.01, "mean": [0, 0, 0], "std": [1, 1, 1]}'

The parameters whose names hold 'fc1' are dropped and the others kept; ImageRecordIter crops at random and mirrors in
training, takes the centre in validation; Xavier (gaussian, in, 2); kvstore 'device'. MXNet alone; gluon_ft only makes
it importable. "frozen": names not to be trained, as fixed_param_names (the how-to trains all).
"""
import json
import os
import resource
import sys
import time


def main(options):
    if not options.get("all_processors"):
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // 2))
    import mxnet as mx

    mx.random.seed(options.get("seed", 0))
    symbol, args, aux = mx.model.load_checkpoint(options["prefix"], options["epoch"])
    body = symbol.get_internals()[options["layer"] + "_output"]
    output = mx.symbol.FullyConnected(body, num_hidden=options["classes"], name="fc1")
    output = mx.symbol.SoftmaxOutput(output, name="softmax")
    kept = {name: value for name, value in args.items() if "fc1" not in name}
    size = options.get("size", 224)

    def records(path, train):
        means = {f"{what}_{c}": value for what in ("mean", "std") for c, value in zip("rgb", options[what])}
        return mx.io.ImageRecordIter(path_imgrec=path, data_shape=(3, size, size), batch_size=options["batch"],
                                     shuffle=train, rand_crop=train, rand_mirror=train,
                                     preprocess_threads=options.get("workers", 2), **means)
    train, val = records(options["train"], True), records(options["val"], False)
    module = mx.mod.Module(output, fixed_param_names=options.get("frozen"))
    begun, history, steps = time.perf_counter(), [], []

    def after_evaluation(param):
        accuracy = dict(param.eval_metric.get_name_value())["accuracy"]
        history.append({"seconds": time.perf_counter() - begun, "accuracy": accuracy})
    module.fit(train, val, num_epoch=options["epochs"], arg_params=kept, aux_params=aux, allow_missing=True,
               batch_end_callback=lambda param: steps.append(param.nbatch), eval_end_callback=after_evaluation,
               kvstore="device", optimizer="sgd", optimizer_params={"learning_rate": options["lr"],
                                                                    "momentum": options.get("momentum", 0.0)},
               initializer=mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2), eval_metric="acc")
    # With the validation after each epoch in it, here and in ours_caltech.py.
    print(json.dumps({"steps": len(steps), "seconds_per_step": history[-1]["seconds"] / len(steps), "history": history,
                      "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
