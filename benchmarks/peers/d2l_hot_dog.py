"""Fine-tuning on hot dogs as Dive into Deep Learning (14.2) describes it, with Gluon: DataLoader and a plain loop.

    python benchmarks/peers/d2l_hot_dog.py '{"data": "../shared/data/hotdog", "batch": 32, "epochs": 5, "lr": 0.01}'

ImageFolderDataset; random-resized crop to 224 and a flip in training, 256 and the centre crop in the test, mean and
std; a DataLoader with worker processes; a new output whose learning rate is ten times the rest's; SGD, weight decay;
the test accuracy after each epoch. gluon_ft supplies the network and its weights and is not otherwise used. Without
"all_processors" MXNet takes half of them, as it does when nobody tells it otherwise.
"""
import json
import os
import resource
import sys
import time


def main(options):
    if not options.get("all_processors"):
        # As MXNet sets itself up; gluon_ft would take all of them when it is imported.
        os.environ["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // 2))
    import gluon_ft  # isort: skip  (prepares the import of mxnet)
    import mxnet as mx

    autograd, gluon = mx.autograd, mx.gluon
    ImageFolderDataset, transforms = gluon.data.vision.ImageFolderDataset, gluon.data.vision.transforms

    mx.random.seed(options.get("seed", 0))
    weights = options.get("pretrained")
    net = gluon_ft.fine_tune_net(options["backbone"], 2, pretrained=weights or False, lr_mult=10)
    how = net.preprocessing if weights else gluon_ft.Preprocessing()
    turn = [_Turn()] if how.rotate180 else []
    last = [transforms.ToTensor(), transforms.Normalize(how.mean, how.std), *turn]
    augmented = transforms.Compose([transforms.RandomResizedCrop(224), transforms.RandomFlipLeftRight(), *last])
    plain = transforms.Compose([transforms.Resize(256, keep_ratio=True), transforms.CenterCrop(224), *last])
    sets = {part: ImageFolderDataset(os.path.join(options["data"], part)) for part in ("train", "test")}
    workers, batch = options.get("workers", 2), options["batch"]

    def loader(part, transform, shuffle):
        return gluon.data.DataLoader(sets[part].transform_first(transform), batch, shuffle=shuffle,
                                     num_workers=workers)

    def placed(batches):
        # Worker processes leave their batches in shared memory, which is another context.
        return ([array.as_in_context(mx.cpu()) for array in pair] for pair in batches)
    train, test = loader("train", augmented, True), loader("test", plain, False)
    trainer = gluon.Trainer(net.collect_params(), "sgd",
                            {"learning_rate": options["lr"], "wd": options.get("wd", 1e-3)})
    loss_of = gluon.loss.SoftmaxCrossEntropyLoss()
    begun, history, steps, training = time.perf_counter(), [], 0, 0.0
    for _ in range(options["epochs"]):
        epoch = time.perf_counter()
        for images, labels in placed(train):
            with autograd.record():
                loss = loss_of(net(images), labels)
            loss.backward()
            trainer.step(len(labels))
            loss.mean().asscalar()
            steps += 1
        mx.nd.waitall()
        training += time.perf_counter() - epoch
        right = sum(int((net(images).argmax(axis=1).astype("int32") == labels.astype("int32")).sum().asscalar())
                    for images, labels in placed(test))
        history.append({"seconds": time.perf_counter() - begun, "accuracy": right / len(sets["test"])})
    print(json.dumps({"steps": steps, "seconds_per_step": training / steps, "history": history,
                      "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                      + workers * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024}))


class _Turn:
    """Half a turn, for weights that take their images so."""

    def __call__(self, image):
        return image.flip(axis=(1, 2))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
