"""A worker for the tests of launch: says its rank, adds something up with the others, and may fail on the way."""
import os
import signal
import sys
import time


def main():
    what, rank = sys.argv[1], os.environ["GLUON_FT_WORKER"]
    print(f"here is {rank} of {os.environ['DMLC_NUM_WORKER']}", flush=True)
    if what in ("fail", "killed") and rank == "1":
        time.sleep(0.5)
    if what == "fail" and rank == "1":
        print("out of paper", file=sys.stderr, flush=True)
        sys.exit(3)
    if what == "killed" and rank == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    if what in ("fail", "killed", "sleep"):
        signal.signal(signal.SIGTERM, lambda *_: (print("saved", flush=True), sys.exit(0)))
        time.sleep(60)
    if what == "sum":
        import gluon_ft  # isort: skip  # noqa: F401
        import mxnet as mx

        store = mx.kv.create("dist_sync")
        value = mx.nd.ones((3,)) * (int(rank) + 1)
        store.init(1, mx.nd.zeros((3,)))
        store.push(1, value)
        total = mx.nd.zeros((3,))
        store.pull(1, out=total)
        print("sum", *total.asnumpy().tolist(), flush=True)


if __name__ == "__main__":
    main()
