"""deferred: what `import mxnet` no longer loads, and that whatever needs it still finds it."""
from __future__ import annotations

import importlib
import sys
import types
import warnings
from importlib.machinery import PathFinder

import mxnet as mx
import numpy as np
import pytest
from test_mxnet_import import HIDE, python

from gluon_ft.runtime.quick_import import deferred


def names_in(code):
    """The names in a module's code, its functions included."""
    inner = [part for part in code.co_consts if isinstance(part, types.CodeType)]
    return {*code.co_names, *(name for part in inner for name in names_in(part))}


@pytest.mark.parametrize(("module", "exchanged"), deferred._EXCHANGED.items())
def test_what_is_exchanged_stands_in_the_module_once(module, exchanged):
    folder = importlib.import_module(module.rpartition(".")[0]).__path__
    loader = deferred.Loader(module, PathFinder.find_spec(module, folder).origin)
    before = names_in(loader.source_to_code(loader.get_data(loader.path), loader.path))
    after = names_in(loader.get_code(module))
    assert set(exchanged) <= before and not set(exchanged) & after
    assert after - before == set(exchanged.values())


def test_import_loads_none_of_it_and_leaves_other_imports_alone():
    out = python("""
        import sys
        heavy = ("sklearn", "scipy", "scipy.stats", "scipy.sparse", "pandas", "onnx", "distutils", "setuptools")
        import gluon_ft
        import mxnet as mx
        mx.nd.array([1, 2]).wait_to_read()
        print([name for name in heavy if name in sys.modules])
        import scipy.sparse, scipy.stats, sklearn.base
        from scipy import stats
        assert all(type(m).__module__ == "builtins" for m in (stats, scipy.sparse, sklearn.base, scipy.stats))
        assert stats.norm is mx.test_utils.ss.norm
        assert mx.nd.array(scipy.sparse.csr_matrix([[0, 1.0]])).asscipy().todense().tolist() == [[0, 1]]
        assert issubclass(mx.model.FeedForward, sklearn.base.BaseEstimator)
    """)
    assert out == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "during"])
def test_scikit_learn_imported_before_mxnet_or_meanwhile(when):
    out = python(f"""
        import threading
        def others():
            global sklearn, scipy
            import sklearn.base, scipy.stats, scipy.sparse
        thread = threading.Thread(target=others)
        thread.start()
        if {when == "before"}:
            thread.join()
        import gluon_ft, mxnet as mx
        thread.join()
        assert type(scipy.stats).__module__ == type(sklearn.base).__module__ == "builtins"
        print(mx.model.FeedForward.__mro__[1] is sklearn.base.BaseEstimator, bool(mx.test_utils.ss.chisquare))
    """)
    assert out == "True True"


@pytest.mark.slow
def test_without_scikit_learn_onnx_and_scipy_mxnet_is_as_it_would_be():
    hidden = "".join(HIDE.format(name=name) for name in ("sklearn", "scipy", "onnx", "pandas"))
    out = python(hidden + """
import gluon_ft, mxnet as mx
assert (mx.test_utils.ss, mx.contrib.quantization.stats, mx.nd.sparse.spsp) == (None, None, None)
print(mx.model.FeedForward.__bases__, mx.model.BASE_ESTIMATOR, mx.nd.array([1, 2]).sum().asscalar())
try:
    mx.onnx.get_operator_support()
except ImportError as error:
    print(error)
""")
    assert out.splitlines()[0] == "(<class 'object'>,) <class 'object'> 3.0"
    assert out.splitlines()[1].startswith("Onnx and protobuf need to be installed")


def feed_forward(epochs=30):
    rows = np.random.RandomState(0).rand(32, 3).astype("float32")
    labels = (rows[:, 0] > 0.5).astype("float32")
    dense = mx.sym.FullyConnected(mx.sym.var("data"), num_hidden=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = mx.model.FeedForward(mx.sym.SoftmaxOutput(dense, name="softmax"), num_epoch=epochs, learning_rate=1.0,
                                     numpy_batch_size=8)
        return model, rows, labels


def test_feed_forward_is_an_estimator_of_scikit_learn():
    import sklearn.base

    model, *_ = feed_forward()
    assert isinstance(model, sklearn.base.BaseEstimator) and mx.model.BASE_ESTIMATOR is sklearn.base.BaseEstimator
    assert model.get_params()["num_epoch"] == 30 and model.set_params(num_epoch=4).num_epoch == 4
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = sklearn.base.clone(model)
    assert type(again) is mx.model.FeedForward is type(model) and again.num_epoch == 4
    assert mx.model.FeedForward.__module__ == "mxnet.model" and "FeedForward" in dir(mx.model)


def test_feed_forward_by_a_star_import():
    names = {}
    exec("from mxnet.model import *", names)  # noqa: S102
    assert names["FeedForward"] is mx.model.FeedForward and names["load_checkpoint"] is mx.model.load_checkpoint
    with pytest.raises(AttributeError, match=r"module 'mxnet\.model' has no attribute 'feedforward'"):
        _ = mx.model.feedforward


def test_feed_forward_trains_saves_and_loads(tmp_path):
    mx.random.seed(1)
    model, rows, labels = feed_forward()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(rows, labels)
        assert (model.predict(rows).argmax(1) == labels).mean() > 0.9
        model.save(str(tmp_path / "net"), 1)
        again = mx.model.FeedForward.load(str(tmp_path / "net"), 1)
        assert np.array_equal(again.predict(rows), model.predict(rows))


@pytest.mark.parametrize(("use", "expected"), [
    (lambda: mx.test_utils.chi_square_check(lambda n: np.arange(n) % 4, buckets=[0, 1, 2, 3], probs=[0.25] * 4,
                                            nsamples=400)[0], 1.0),
    (lambda: mx.test_utils.gen_buckets_probs_with_ppf(mx.test_utils.ss.norm.ppf, 2)[1], [0.5, 0.5]),
    (lambda: mx.test_utils.rand_sparse_ndarray((4, 4), "csr", density=0.5)[0].stype, "csr"),
    (lambda: mx.test_utils.ss.__name__, "scipy.stats"),
    (lambda: mx.nd.sparse.csr_matrix(([1.0], ([0], [1])), shape=(1, 2)).asscipy().nnz, 1)])
def test_what_uses_scipy(use, expected):
    assert use() == expected


@pytest.mark.parametrize(("text", "numbers"), [("1.26.4", (1, 26, 4)), ("2.0.0rc1", (2, 0, 0)), ("1.9", (1, 9))])
def test_versions_are_compared_by_their_numbers(text, numbers):
    assert deferred.LooseVersion(text) == numbers
    assert (deferred.StrictVersion(text) >= deferred.LooseVersion("1.17")) is (numbers >= (1, 17))


def test_operators_for_onnx_are_registered():
    pytest.importorskip("onnx", reason="onnx is not installed")
    assert {"Convolution", "BatchNorm", "softmax"} <= set(mx.onnx.get_operator_support(13))
    module = importlib.import_module("mxnet.onnx.mx2onnx._op_translations._op_translations_opset12")
    assert module.onnx.TensorProto is sys.modules["onnx"].TensorProto
