"""Fine-tuning as in D2L's chapter, through `np` and `npx`: new output with ten times the rate, against from scratch."""
import os
import sys

from mxnet import autograd, gluon, init, np, npx
from mxnet.gluon import nn

npx.set_np()
folder, params, epochs = sys.argv[1], sys.argv[2], int(sys.argv[3])

normalize = gluon.data.vision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
train_augs = gluon.data.vision.transforms.Compose([
    gluon.data.vision.transforms.RandomResizedCrop(32, scale=(0.5, 1.0)),
    gluon.data.vision.transforms.RandomFlipLeftRight(), gluon.data.vision.transforms.ToTensor(), normalize])
test_augs = gluon.data.vision.transforms.Compose([
    gluon.data.vision.transforms.Resize(36), gluon.data.vision.transforms.CenterCrop(32),
    gluon.data.vision.transforms.ToTensor(), normalize])


def try_all_gpus():
    return [npx.gpu(i) for i in range(npx.num_gpus())] or [npx.cpu()]


def accuracy(net, data_iter, devices):
    right, total = np.zeros(1), 0
    for features, labels in data_iter:
        X = gluon.utils.split_and_load(features, devices)
        y = gluon.utils.split_and_load(labels, devices)
        for a, b in zip(X, y):
            right += (net(a).argmax(axis=1) == b.astype("int64")).astype("float32").sum()
            total += len(b)
    return float(right[0]) / total


def train_fine_tuning(net, learning_rate, batch_size=8):
    train_iter = gluon.data.DataLoader(train_imgs.transform_first(train_augs), batch_size, shuffle=True)
    test_iter = gluon.data.DataLoader(test_imgs.transform_first(test_augs), batch_size)
    devices = try_all_gpus()
    net.collect_params().reset_ctx(devices)
    net.hybridize()
    loss = gluon.loss.SoftmaxCrossEntropyLoss()
    trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": learning_rate, "wd": 0.001})
    for epoch in range(epochs):
        total, n = 0.0, 0
        for features, labels in train_iter:
            X = gluon.utils.split_and_load(features, devices)
            y = gluon.utils.split_and_load(labels, devices)
            with autograd.record():
                losses = [loss(net(a), b) for a, b in zip(X, y)]
            for value in losses:
                value.backward()
            trainer.step(features.shape[0])
            total += sum(float(value.sum()) for value in losses)
            n += features.shape[0]
        print("epoch %d, loss %.3f" % (epoch + 1, total / n))
    return accuracy(net, test_iter, devices)


train_imgs = gluon.data.vision.ImageFolderDataset(os.path.join(folder, "train"))
test_imgs = gluon.data.vision.ImageFolderDataset(os.path.join(folder, "test"))
print(train_imgs[0][0].shape, train_imgs.synsets)

pretrained_net = gluon.model_zoo.vision.resnet18_v2()
pretrained_net.load_parameters(params)
finetune_net = gluon.model_zoo.vision.resnet18_v2(classes=2)
finetune_net.features = pretrained_net.features
finetune_net.output.initialize(init.Xavier())
finetune_net.output.collect_params().setattr("lr_mult", 10)
fine_tuned = train_fine_tuning(finetune_net, 0.01)

scratch_net = gluon.model_zoo.vision.resnet18_v2(classes=2)
scratch_net.initialize(init=init.Xavier())
print("from scratch %.3f" % train_fine_tuning(scratch_net, 0.1))

weight = pretrained_net.output.weight
row = np.split(weight.data(), 1000, axis=0)[934]
print("row of a class:", row.shape, isinstance(finetune_net.output, nn.Dense))
print("accuracy %.3f" % fine_tuned)
