"""Fine-tuning through symbols as image-classification's program does it: .rec files, Module.fit, a checkpoint."""
import argparse
import logging

import mxnet as mx
import numpy as np

logging.basicConfig(level=logging.DEBUG, format="%(asctime)-15s %(message)s")


def get_fine_tune_model(symbol, arg_params, num_classes, layer_name="flatten0", dtype="float32"):
    all_layers = symbol.get_internals()
    net = all_layers[layer_name + "_output"]
    net = mx.symbol.FullyConnected(data=net, num_hidden=num_classes, name="fc")
    if dtype == "float16":
        net = mx.sym.Cast(data=net, dtype=np.float32)
    net = mx.symbol.SoftmaxOutput(data=net, name="softmax")
    return net, dict({k: arg_params[k] for k in arg_params if "fc" not in k})


def get_iterators(args):
    shape = tuple(int(n) for n in args.image_shape.split(","))
    train = mx.io.ImageRecordIter(
        path_imgrec=args.data_train, path_imgidx=args.data_train.replace(".rec", ".idx"), label_width=1,
        mean_r=123.68, mean_g=116.779, mean_b=103.939, std_r=np.float64(58), std_g=np.float64(58), std_b=58.0,
        data_name="data", label_name="softmax_label", data_shape=shape, batch_size=args.batch_size, rand_crop=True,
        rand_mirror=True, shuffle=True, preprocess_threads=2, num_parts=1, part_index=0)
    val = mx.io.ImageRecordIter(
        path_imgrec=args.data_val, label_width=1, mean_r=123.68, mean_g=116.779, mean_b=103.939, std_r=58.0, std_g=58.0,
        std_b=58.0, data_name="data", label_name="softmax_label", batch_size=args.batch_size, data_shape=shape,
        rand_crop=False, rand_mirror=False)
    return train, val


def fit(args, symbol, arg_params, aux_params, train, val):
    devs = mx.cpu() if not args.gpus else [mx.gpu(int(i)) for i in args.gpus.split(",")]
    kv = mx.kvstore.create(args.kv_store)
    steps = [np.int64(args.num_examples / args.batch_size) * int(e) for e in args.lr_step_epochs.split(",")]
    model = mx.mod.Module(context=devs, symbol=symbol)
    optimizer_params = {"learning_rate": args.lr, "wd": 0.0001, "momentum": 0.9,
                        "lr_scheduler": mx.lr_scheduler.MultiFactorScheduler(step=[int(s) for s in steps], factor=0.1)}
    model.fit(train, begin_epoch=0, num_epoch=args.num_epochs, eval_data=val,
              eval_metric=["accuracy", mx.metric.create("top_k_accuracy", top_k=2)], kvstore=kv, optimizer="sgd",
              optimizer_params=optimizer_params,
              initializer=mx.init.Xavier(rnd_type="gaussian", factor_type="in", magnitude=2), arg_params=arg_params,
              aux_params=aux_params, batch_end_callback=mx.callback.Speedometer(args.batch_size, 2),
              epoch_end_callback=mx.callback.do_checkpoint(args.model_prefix), allow_missing=True)
    return model


def main():
    parser = argparse.ArgumentParser()
    for name in ("--pretrained-model", "--data-train", "--data-val", "--model-prefix"):
        parser.add_argument(name)
    parser.add_argument("--layer-before-fullc", default="flatten0")
    parser.add_argument("--image-shape", default="3,32,32")
    parser.add_argument("--num-classes", type=int, default=2)
    parser.add_argument("--num-examples", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--lr-step-epochs", default="3,5")
    parser.add_argument("--kv-store", default="device")
    parser.add_argument("--gpus", default=None)
    args = parser.parse_args()
    sym, arg_params, aux_params = mx.model.load_checkpoint(args.pretrained_model, 0)
    sym, arg_params = get_fine_tune_model(sym, arg_params, args.num_classes, args.layer_before_fullc)
    train, val = get_iterators(args)
    model = fit(args, sym, arg_params, aux_params, train, val)
    val.reset()
    scores = dict(model.score(val, ["acc"]))
    # What was saved gives the same.
    again = mx.mod.Module.load(args.model_prefix, args.num_epochs, label_names=("softmax_label",))
    again.bind(val.provide_data, val.provide_label, for_training=False)
    again.init_params()
    val.reset()
    assert dict(again.score(val, ["acc"])) == scores
    print("accuracy %.3f" % scores["accuracy"])


if __name__ == "__main__":
    main()
