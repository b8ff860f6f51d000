"""A program like GluonCV's finetuning of a classifier: options, a log file, a schedule, the best epoch saved."""
import argparse
import logging
import os

import gluoncv
import mxnet as mx
import numpy as np
from mxnet import autograd as ag, gluon, lr_scheduler
from mxnet.gluon import nn
from mxnet.gluon.data.vision import transforms
from gluoncv.loss import MixSoftmaxCrossEntropyLoss  # noqa: F401  imported as programs do, whether used or not
from gluoncv.utils import LRScheduler, TrainingHistory


def parse_opts():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data")
    parser.add_argument("--model", default="cifar_resnet20_v1")
    parser.add_argument("--params")
    parser.add_argument("--save-dir")
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("-j", "--workers", dest="num_workers", type=int, default=2)
    parser.add_argument("--num-gpus", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("-b", "--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--wd", type=float, default=1e-4)
    return parser.parse_args()


def main():
    opts = parse_opts()
    logging.basicConfig(level=logging.INFO, handlers=[
        logging.StreamHandler(), logging.FileHandler(os.path.join(opts.save_dir, "train.log"))])
    logging.info(opts)
    ctx = [mx.gpu(i) for i in range(opts.num_gpus)] or [mx.cpu()]
    normalize = transforms.Normalize(mean=tuple(np.array([0.485, 0.456, 0.406])),
                                     std=tuple(np.float32([0.229, 0.224, 0.225])))
    train_tf = transforms.Compose([transforms.RandomResizedCrop(32, scale=(0.5, 1.0)),
                                   transforms.RandomFlipLeftRight(), transforms.ToTensor(), normalize])
    test_tf = transforms.Compose([transforms.Resize(36, keep_ratio=True), transforms.CenterCrop(32),
                                  transforms.ToTensor(), normalize])

    def data(part, transform, **kwargs):
        folder = gluon.data.vision.ImageFolderDataset(os.path.join(opts.data, part))
        return gluon.data.DataLoader(folder.transform_first(transform), batch_size=opts.batch_size,
                                     num_workers=opts.num_workers, **kwargs)

    train_data, val_data = data("train", train_tf, shuffle=True, last_batch="rollover"), data("test", test_tf)

    net = gluoncv.model_zoo.get_model(opts.model, classes=1000)
    net.load_parameters(opts.params, ctx=ctx)
    with net.name_scope():
        net.output = nn.Dense(opts.classes, in_units=64, prefix="output_")
    net.output.initialize(mx.init.Xavier(), ctx=ctx)
    net.collect_params(".*output.*").setattr("lr_mult", np.float64(2))
    net.hybridize(static_alloc=True)

    num_batches = len(train_data)
    schedule = LRScheduler("cosine", base_lr=opts.lr, target_lr=0, nepochs=opts.epochs, iters_per_epoch=num_batches)
    trainer = gluon.Trainer(net.collect_params(), "nag", {"lr_scheduler": schedule, "momentum": opts.momentum,
                                                          "wd": opts.wd})
    assert isinstance(schedule, lr_scheduler.LRScheduler)
    criterion = gluon.loss.SoftmaxCrossEntropyLoss()
    history = TrainingHistory(["training-error", "validation-error"])

    def validate():
        metric = mx.metric.CompositeEvalMetric([mx.metric.Accuracy(), mx.metric.TopKAccuracy(2)])
        for batch in val_data:
            X = gluon.utils.split_and_load(batch[0], ctx, even_split=False)
            y = gluon.utils.split_and_load(batch[1], ctx, even_split=False)
            metric.update(y, [net(x) for x in X])
        return metric.get()[1]

    best = 0
    for epoch in range(opts.epochs):
        metric = mx.metric.Accuracy()
        for batch in train_data:
            X = gluon.utils.split_and_load(batch[0], ctx, even_split=False)
            y = gluon.utils.split_and_load(batch[1], ctx, even_split=False)
            with ag.record():
                outputs = [net(x) for x in X]
                losses = [criterion(o, t) for o, t in zip(outputs, y)]
            ag.backward(losses)
            trainer.step(batch[0].shape[0])
            metric.update(y, outputs)
        top1, top2 = validate()
        history.update([1 - metric.get()[1], 1 - top1])
        logging.info("[Epoch %d] training: %f validation: %f %f rate: %g", epoch, metric.get()[1], top1, top2,
                     trainer.learning_rate)
        if top1 > best:
            best = top1
            net.save_parameters("%s/%.4f-%s-best.params" % (opts.save_dir, best, opts.model))
    history.plot(labels=["training-error", "validation-error"], save_path=os.path.join(opts.save_dir, "history.png"))
    print("accuracy %.3f" % best)


if __name__ == "__main__":
    main()
