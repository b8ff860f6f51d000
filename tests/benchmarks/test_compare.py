"""benchmarks/compare/compare.py on a repository of its own, noise.py, and the ratios of peers/compare_peers.py."""
from __future__ import annotations

import csv
import json
import subprocess

import pytest
from conftest import shared_data

from benchmarks import runner
from benchmarks.accuracy import targets
from benchmarks.compare import compare, noise
from benchmarks.peers import compare_peers

# The 'seconds' of these pieces of work are counted, not clocked, so that nothing depends on the machine.
WORK = """
import json, sys
NAMES = ["sum", "accurate", "new-only", "noisy"]
if sys.argv[1] == "--list":
    print(json.dumps(NAMES))
    sys.exit()
import speed
row, seed = sys.argv[1], int(sys.argv[2])
if row == "sum":
    print(json.dumps({"seconds": speed.count() / 1000}))
elif row == "accurate":
    print(json.dumps({"seconds": 1, "accuracy": speed.ACCURACY + seed / 1000, "settings": {"lr": speed.LR}}))
elif row == "noisy":
    print(json.dumps({"seconds": speed.count() * (1, 3, 1.1, 2, 5, 1.3, 4, 1.2)[(seed * 3 + speed.ODD) % 8]}))
else:
    print(json.dumps({"seconds": speed.new()}))
"""
SPEED = """
ACCURACY, LR, ODD = {accuracy}, {lr}, {odd}
def count():
    return sum(1 for _ in range({steps}))
"""


def git(folder, *words):
    return subprocess.run(["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *words],
                          check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path):
    """Makes commits of speed.py; the script that measures lies outside."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q")
    (tmp_path / "work.py").write_text(WORK)

    def commit(steps, accuracy=0.9, lr=1, odd=0, more=""):
        (root / "speed.py").write_text(SPEED.format(steps=steps, accuracy=accuracy, lr=lr, odd=odd) + more)
        git(root, "add", "speed.py")
        git(root, "commit", "-qm", f"{steps} steps", "--allow-empty")
        return git(root, "rev-parse", "HEAD")

    commit.root = root
    return commit


@pytest.fixture
def command(repository, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(runner, "RESULTS", tmp_path / "results")

    def call(*options, status):
        with pytest.raises(SystemExit) as stop:
            compare.main(["--repository", str(repository.root), "--script", str(tmp_path / "work.py"),
                          *([] if "--repeats" in options else ["--repeats", "3"]), *map(str, options)])
        printed = capsys.readouterr()
        assert stop.value.code == status, printed.out + printed.err
        assert git(repository.root, "worktree", "list").count("\n") == 0, "the work trees are gone"
        return printed

    return call


def rows_of(printed):
    return {row["row"]: row for row in json.loads(printed.out.splitlines()[-1])["rows"]}


@pytest.mark.parametrize(("old", "new", "state", "status"), [(1000, 1500, "slower", 1), (1500, 1000, "faster", 0),
                                                             (1000, 1010, "same", 0)])
def test_the_ratio_of_two_commits(repository, command, tmp_path, old, new, state, status):
    commits = [repository(old), repository(new)]
    printed = command("--rows", "sum", "--json", status=status)
    row = rows_of(printed)["sum"]
    assert row["state"] == state and row["ratio"] == pytest.approx(new / old)
    answer = json.loads(printed.out.splitlines()[-1])
    assert [answer["old"], answer["new"]] == commits
    with open(tmp_path / "results" / "compare.csv") as file:
        [line] = csv.DictReader(file)
    assert float(line["median"]) == pytest.approx(new / old, rel=1e-4) and line["runs"] == "3"
    assert line["settings"] == f"sum; {commits[1][:12]} against {commits[0][:12]}"


def test_a_named_baseline_and_a_named_new_commit(repository, command):
    first, _, third = repository(1000), repository(5000), repository(900)
    assert rows_of(command("--rows", "sum", "--baseline", first, "--json", status=0))["sum"]["ratio"] == 0.9
    row = rows_of(command("--rows", "sum", "--baseline", third, "--new", "HEAD~1", "--json", status=1))["sum"]
    assert row["ratio"] == pytest.approx(5000 / 900)


def test_less_accuracy_with_equal_settings_is_a_loss(repository, command):
    repository(10, accuracy=0.9)
    repository(10, accuracy=0.88)
    row = rows_of(command("--rows", "accurate", "--json", status=1))["accurate"]
    assert row["state"] == "less accurate" and row["accuracy"] == pytest.approx(-0.02)
    repository(10, accuracy=0.5, lr=2)
    row = rows_of(command("--rows", "accurate", "--json", status=0))["accurate"]
    assert row["state"] == "same" and row["accuracy"] is None, "other settings are not compared"


def test_noise_is_not_a_loss(repository, command):
    repository(1000, odd=0)
    repository(1000, odd=1)
    row = rows_of(command("--rows", "noisy", "--json", status=0))["noisy"]
    assert row["limit"] > 1.5 and row["state"] == "same"


def test_what_the_old_commit_cannot_do_is_said(repository, command):
    repository(10)
    repository(10, more="def new():\n    return 1\n")
    printed = command("--rows", "new-only", status=3)
    assert "new-only: not comparable: old: AttributeError: module 'speed' has no attribute 'new'" in printed.out
    assert "new-only: not comparable" in command("--rows", "new-only", "--rows", "sum", status=0).out


def test_uncommitted_changes_are_mentioned_and_left_alone(repository, command):
    repository(1000)
    repository(1000)
    (repository.root / "speed.py").write_text("broken")
    assert "note: uncommitted changes are not compared" in command("--rows", "sum", status=0).err
    assert (repository.root / "speed.py").read_text() == "broken"


@pytest.mark.parametrize(("options", "message"), [
    (["--rows", "smu"], "no row 'smu'; did you mean sum?"),
    (["--baseline", "nothing"], "git rev-parse failed"),
    (["--repeats", "1"], "is not in the range"),
])
def test_bad_input_is_one_line(repository, command, options, message):
    repository(10)
    repository(10)
    printed = command(*options, status=2)
    assert message in printed.err and len(printed.err.strip().splitlines()) == 1


@pytest.mark.slow
def test_this_projects_own_work_has_names_and_runs():
    known = compare.known_rows(compare.SCRIPT)
    assert {"import", "train-resnet18", "load-folder", "digits"} <= set(known)
    answer = compare.run_once(compare.SCRIPT, "digits", 0, compare.ROOT)
    assert answer["seconds"] > 0 and 0.5 < answer["accuracy"] <= 1 and answer["settings"]["epochs"] == 2


# ------------------------------------------------------------------------------------------------ noise

def test_a_constant_ratio_has_no_noise():
    found = noise.time_ratio([1.0, 1.0, 1.0], [1.2, 1.2, 1.2])
    assert (found.median, found.noise) == (pytest.approx(1.2), pytest.approx(0))
    assert found.limit == pytest.approx(noise.LEAST)
    assert found.slower and not found.faster
    assert noise.time_ratio([1.2] * 3, [1.0] * 3).faster
    assert not noise.time_ratio([1.0] * 3, [1.0 + 0.9 * noise.LEAST] * 3).slower


def test_a_machine_that_slows_down_is_noise_by_the_a_a_comparison():
    # Each pair has the same ratio, but the same version takes 1, 2 and 4 seconds.
    found = noise.time_ratio([1.0, 2.0, 4.0], [1.1, 2.2, 4.4])
    assert found.median == pytest.approx(1.1) and found.noise > 0.5 and not found.slower


def test_one_bad_pair_does_not_decide():
    assert not noise.time_ratio([1.0] * 7, [1.0] * 6 + [9.0]).slower


def test_accuracy_is_compared_by_seed():
    assert noise.accuracy_loss([0.9, 0.8, 0.7], [0.89, 0.79, 0.69]) == (pytest.approx(-0.01), -0.005)
    lead, limit = noise.accuracy_loss([0.9, 0.8, 0.7], [0.95, 0.75, 0.69])
    assert lead == pytest.approx(-0.01) and limit < -0.03


# ------------------------------------------------------------------------------------------------ peers

def answer(per_step, *history, peak=100.0):
    return {"seconds_per_step": per_step, "peak_mb": peak,
            "history": [{"seconds": s, "accuracy": a} for s, a in history]}


def test_peers_are_compared_round_by_round():
    found = {"ours": [answer(1.0, (10, 0.8), (20, 0.9)), answer(2.0, (20, 0.9))],
             "ours, default": [answer(None, (2, 0.9)), answer(None, (4, 0.9))],
             "D2L": [answer(1.5, (30, 0.9)), answer(1.0, (15, 0.7), (30, 0.8))]}
    lines = {(r["settings"], r["quantity"]): r for r in compare_peers.lines_of("hot-dog", found, 0.85)}
    step = lines["hot-dog, D2L", "time per step, theirs / ours"]
    assert (step["median"], step["min"], step["max"]) == ("1", "0.5", "1.5")
    time = lines["hot-dog, D2L", "time to 0.85, theirs / ours"]
    assert (time["min"], time["max"]) == ("1.5", "1.5")
    default = lines["hot-dog, D2L", "time to 0.85, theirs / ours, default"]
    assert (default["min"], default["max"]) == ("7.5", "15")
    assert lines["hot-dog, D2L", "time to 0.85"]["runs"] == 1, "one of two rounds did not get there"
    assert ("hot-dog, ours, default", "time per step") not in lines
    assert compare_peers.behind(list(lines.values())) == []
    found["D2L"] = [answer(0.9, (5, 0.9)), answer(1.9, (5, 0.9))]
    missed = compare_peers.behind(compare_peers.lines_of("hot-dog", found, 0.85))
    assert len(missed) == 2 and "time per step, theirs / ours is 0.9" in missed[0] and "default is" in missed[1]


def test_bfloat16_is_compared_with_bfloat16_as_well():
    found = {"ours": [answer(2.0)], "ours, bfloat16": [answer(1.0)], "PyTorch, bfloat16": [answer(1.5)],
             "PyTorch": [answer(3.0)]}
    assert list(compare_peers.ratios("PyTorch, bfloat16", found, None)) == [
        ("ours", "time per step", [0.75]), ("ours, bfloat16", "time per step", [1.5])]
    assert list(compare_peers.ratios("PyTorch", found, None)) == [("ours", "time per step", [1.5])]


def test_an_interpreter_without_torch_is_left_out(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(compare_peers.hardware, "bfloat16_flags", list)
    monkeypatch.setenv("GLUON_FT_TORCH_PYTHON", str(tmp_path / "no" / "python"))
    names = compare_peers.contestants("steps", tmp_path, 1)
    assert list(names) == ["ours", "D2L, all processors", "D2L"]
    monkeypatch.setattr(compare_peers.hardware, "bfloat16_flags", lambda: ["amx_bf16"])
    names = compare_peers.contestants("steps", tmp_path, 1)
    assert names["ours, bfloat16"][2] == {**names["ours"][2], "precision": "bfloat16"}
    assert "skipped PyTorch" in capsys.readouterr().err
    assert compare_peers.has_torch(None) is False


@pytest.mark.slow
@pytest.mark.parametrize("match", compare_peers.MATCHES)
def test_each_match_is_played(match, tmp_path, monkeypatch):
    for name in ("hotdog", "caltech256", "weights"):
        shared_data(name)
    monkeypatch.setenv("GLUON_FT_WEIGHTS", targets.shared_weights())
    found = compare_peers.play(match, 1, tmp_path, 1)
    assert len(found) >= 3
    for name, [played] in found.items():
        assert played["peak_mb"] > 50, name
        assert 0 <= played["history"][-1]["accuracy"] <= 1
        assert played["seconds_per_step"] is None or played["seconds_per_step"] > 0
    assert len({played["steps"] for name, [played] in found.items() if "default" not in name}) == 1
    assert compare_peers.lines_of(match, found, compare_peers.ACCURACY.get(match))
