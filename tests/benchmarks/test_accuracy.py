"""benchmarks/accuracy/check.py: the command's honest words, and real rows that notice deliberate regressions."""
from __future__ import annotations

import json
from dataclasses import replace

import pytest
from benchmark_runs import packed_fixture, pictures_fixture, target  # noqa: F401  (fixtures)
from conftest import HELPERS, ROOT, shared_data

from benchmarks import runner
from benchmarks.accuracy import check, identity, targets

REGRESSIONS = HELPERS / "deliberate_regressions.py"


@pytest.fixture
def command(capsys, monkeypatch, tmp_path):
    """Runs check.py's command on given targets; its figures go to a folder of the test."""
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "results")

    def call(found, *options, status):
        monkeypatch.setattr(targets, "load", lambda: found)
        with pytest.raises(SystemExit) as stop:
            check.main([*map(str, options)])
        printed = capsys.readouterr()
        assert stop.value.code == status, printed.out + printed.err
        return printed

    return call


def test_what_cannot_be_run_is_said_and_is_not_a_success(command):
    gpu = [t for t in targets.load() if t.gpu]
    printed = command(gpu, "--run", "--json", status=3)
    lines = printed.out.splitlines()
    assert len(lines) == len(gpu) + 2
    for line, of in zip(lines, gpu):
        assert line.startswith(f"{of.id}: not run: 8 GPUs of compute capability 5.0 to 8.6, 0 here")
        assert f"gluon-ft weights get {of.weights}" in line and "gluon-ft data get caltech-256" in line
    assert lines[-2] == f"0 passed, 0 failed, {len(gpu)} not run"
    assert {row["state"] for row in json.loads(lines[-1])["rows"]} == {"not run"}


def test_a_finished_run_is_judged_and_recorded(command, packed, tmp_path):
    of, run = packed
    assert "t: passed: net" in command([of], "--only", "t", "--from", run, status=0).out
    text = (tmp_path / "results" / "accuracy.csv").read_text()
    assert "t,pictures; x.py --seeds 1,\"net, validation accuracy\",fraction,1,0.9,0.9,0.9" in text
    strict = replace(of, checks=(targets.Check("net", low=0.95, high=1.0),))
    assert "0.9000, outside 0.95 to 1" in command([strict], "--only", "t", "--from", run, status=1).out
    assert (tmp_path / "results" / "accuracy.csv").read_text() == text


@pytest.mark.parametrize(("options", "message"), [
    (["--only", "tt"], "error: no target 'tt'; did you mean t?"),
    (["--from", "nowhere"], "error: nowhere: --from reads one finished run; expected its folder, and --only ID"),
    (["--quik"], "no such option --quik; did you mean --quick"),
    (["--seeds", "0"], "is not in the range"),
])
def test_bad_options_are_one_line(command, packed, options, message):
    printed = command([packed[0]], *options, status=2)
    assert len(printed.err.strip().splitlines()) == 1 and message in printed.err


SCRIPT = """
import json, pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
folder = pathlib.Path(options["--runs"], "script-1")
folder.mkdir(parents=True)
(folder / "config.json").write_text('{"lr": 1}')
rows = [{"name": "net", "seed": s, "validation_accuracy": 0.9} for s in range(int(options["--seeds"]))]
(folder / "result.json").write_text(json.dumps({"rows": rows}))
END
"""


@pytest.mark.parametrize(("end", "state", "text"), [
    ("print(json.dumps({'run': str(folder)}))", "passed", "net, validation accuracy 0.9000 (2 of 3 seeds)"),
    ("sys.exit('error: out of memory')", "failed", "x.py ended with status 1: error: out of memory"),
    ("print('done')", "failed", "x.py did not end with its JSON line"),
])
def test_a_script_is_run_and_its_run_is_read(tmp_path, monkeypatch, end, state, text):
    (tmp_path / "x.py").write_text(SCRIPT.replace("END", end))
    monkeypatch.setattr(identity, "_folder", lambda *_: None)
    of = target(targets.Check("net", low=0.8, high=1.0), config={"lr": 1})
    monkeypatch.setattr(targets.Data, "bundled", True)
    outcome = check.run_row(of, 2, tmp_path / "runs", tmp_path)
    assert (outcome.state, outcome.text) == (state, text)


def test_a_row_sees_what_was_downloaded_and_nothing_that_was_computed(tmp_path, monkeypatch):
    """A network kept from before would hide a mistake made since, and its training would be missing in the run."""
    home = tmp_path / "home"
    monkeypatch.setenv("GLUON_FT_HOME", str(home))
    for name in ("weights/a.params", "features/b.npy", "odd_or_even/c.params"):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_bytes(b"x")
    (tmp_path / "x.py").write_text("import os, sys\nfrom pathlib import Path\n"
                                   "home = Path(os.environ['GLUON_FT_HOME'])\n"
                                   "sys.exit(' '.join(sorted(str(p.relative_to(home)) for p in home.glob('*/*'))))\n")
    monkeypatch.setattr(targets.Data, "bundled", True)
    outcome = check.run_row(target(), 1, tmp_path / "runs", tmp_path)
    assert outcome.text == "x.py ended with status 1: weights/a.params"
    assert (home / "weights" / "a.params").read_bytes() == b"x"


def with_regression(kind, of, tmp_path, seeds=1):
    """A row's outcome when the library is wrong in one respect; kind None: as it is."""
    if of.data.path:
        shared_data(of.data.path)
    if of.weights:
        shared_data("weights")
    if not (ROOT / of.script).is_file():
        pytest.skip(f"{of.script} is not written yet")
    script, real = tmp_path / of.script, str(ROOT / of.script)
    script.parent.mkdir(parents=True, exist_ok=True)
    argv = [str(REGRESSIONS), kind, real] if kind else [real]
    script.write_text(f"import runpy, sys\nsys.path[:0] = {[str(ROOT), str((ROOT / of.script).parent)]!r}\n"
                      f"sys.argv[:1] = {argv!r}\nrunpy.run_path({argv[0]!r}, run_name='__main__')\n")
    return check.run_row(of, seeds, tmp_path / "runs", tmp_path)


def row_called(name):
    return targets.choose(targets.load(), [name])[0]


@pytest.mark.parametrize(("kind", "words"), [
    pytest.param(None, "passed", marks=pytest.mark.slow),
    pytest.param("batchnorm_not_frozen", "head, train loss is 0.", marks=pytest.mark.slow),
    pytest.param("half_the_rate_of_the_head", "head, train loss is 0.", marks=pytest.mark.slow),
    pytest.param("shuffled_labels", "head, train loss is 0.", marks=pytest.mark.slow),
    pytest.param("wrong_mean_and_std", "head, validation accuracy is 0.", marks=pytest.mark.slow),
])
def test_the_small_row_notices_each_regression(tmp_path, kind, words):
    outcome = with_regression(kind, row_called("cifar10-head"), tmp_path)
    assert outcome.state == ("failed" if kind else "passed"), outcome.line()
    assert words in outcome.line()
    assert "refused" not in outcome.text and "ended with" not in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "words"), [
    (None, "cifar_resnet56_relu, validation accuracy 0.8250"),
    ("wrong_mean_and_std", "cifar_resnet20_relu, validation accuracy is 0.27"),
])
def test_the_import_check_is_exact(tmp_path, kind, words):
    outcome = with_regression(kind, row_called("cifar10-import"), tmp_path)
    assert outcome.state == ("failed" if kind else "passed") and words in outcome.text, outcome.line()


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "words"), [
    (None, "passed"),
    ("half_the_rate_of_the_head", "fine-tuned, train loss, seed 0 is"),
    ("shuffled_labels", "ten digits, train loss is"),
])
def test_odd_and_even_notices_what_it_can(tmp_path, kind, words, monkeypatch):
    monkeypatch.setenv("GLUON_FT_HOME", str(tmp_path / "home"))
    outcome = with_regression(kind, row_called("digits-odd-even"), tmp_path)
    assert outcome.state == ("failed" if kind else "passed"), outcome.line()
    assert words in outcome.line() and "refused" not in outcome.text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hot-dog-svm", "caltech20-symbolic", "caltech20-gluon"])
def test_rows_on_real_photos_pass(tmp_path, name):
    outcome = with_regression(None, row_called(name), tmp_path)
    assert outcome.state == "passed", outcome.line()
