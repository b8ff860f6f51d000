"""Run folders that a stranger sent: damaged or hostile files are refused in one line, or count as missing."""
from __future__ import annotations

import json

import pytest

from gluon_ft.errors import UserError
from gluon_ft.reporting import data_record, run_files, runs
from gluon_ft.reporting.run import Run, read_metrics

ROW = {"name": "a", "seed": 0, "train_accuracy": 0.5, "validation_accuracy": 0.25, "seconds": 1.5}
PART = {"source": "x.lst", "root": "photos", "images": 1, "sha256": "0" * 64, "files": [["a.jpg", 0, "1" * 64]]}
DATA = {"classes": ["a"], "parts": {"train": PART}, "left_out": [], "sha256": "0" * 64, "weights": None}
RAW = {"levels": "{" + '"a":{' * 50_000, "brackets": "[" * 5_000, "bytes": b'{"a": "\xff"}',
       "digits": '{"date": ' + "9" * 400 + "}", "a list": "[]", "a number": "3", "empty": "", "NaN": '{"a": NaN}'}
WRONG = {
    "config.json": [{"origins": []}, {"origins": {"lr": ["x"]}}, {"reasons": 5}],
    "environment.json": [{"date": 5}, {"resumed": {}}, {"resumed": [1]}, {"gluon_ft": []}, {"command": ["rm"]}],
    "result.json": [{"rows": {}}, {"rows": [1]}, {"rows": [{**ROW, "name": []}]},
                    {"rows": [{**ROW, "validation_accuracy": "1"}]}, {"rows": [{**ROW, "seconds": {}}]},
                    {"best_epoch": "x"}],
}


def folder(tmp_path, **files):
    made = {"config": {"lr": 0.1}, "environment": {"date": "2026-01-02", "command": "train"},
            "result": {"rows": [ROW]}, "data": DATA}
    tmp_path.mkdir(exist_ok=True)
    for name, value in {**made, **files}.items():
        text = value if isinstance(value, (str, bytes)) else json.dumps(value)
        (tmp_path / f"{name}.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path


@pytest.mark.parametrize("name", list(WRONG))
@pytest.mark.parametrize("case", [*RAW, 0, 1, 2, 3, 4, 5])
def test_damaged_files_count_as_missing_in_the_list_and_are_named_elsewhere(tmp_path, name, case):
    if case not in RAW and case >= len(WRONG[name]):
        return
    value = RAW[case] if case in RAW else WRONG[name][case]
    good, bad = folder(tmp_path / "good"), folder(tmp_path / "bad", **{name.partition(".")[0]: value})
    assert [run["name"] for run in runs.find(tmp_path)] == sorted(
        ["good", "bad"], key=lambda n: ("" if n == "bad" and name == "environment.json" else "2026-01-02", n))
    runs.compare(good, bad)
    with pytest.raises(UserError, match=f"{name}: cannot be read; expected what a run wrote; found ") as error:
        run_files.read(bad / name)
    assert len(str(error.value)) < 600 and "\n" not in str(error.value)


@pytest.mark.parametrize("change", [
    {"classes": "abc"}, {"classes": [1]}, {"parts": []}, {"parts": {"train": 1}}, {"left_out": {}},
    {"parts": {"train": {**PART, "files": [["a.jpg", 0]]}}}, {"parts": {"train": {**PART, "sha256": 5}}},
    {"parts": {"train": {**PART, "files": [["a.jpg", "x", "1"]]}}}, {"weights": "x"}, {"weights": {"source": "x"}}])
def test_a_damaged_record_of_the_data_is_refused(tmp_path, change):
    good, bad = folder(tmp_path / "good"), folder(tmp_path / "bad", data={**DATA, **change})
    assert runs.compare(good, good)["data"] == []
    with pytest.raises(UserError, match=r"data.json: not the record of a run's data; found "):
        runs.compare(good, bad)
    with pytest.raises(UserError, match=r"data.json"):
        data_record.read(bad)


@pytest.mark.parametrize("line", [
    '{"series": ["a"], "epoch": 1}', '{"series": "a", "epoch": "1"}', '{"series": "a", "epoch": 1, "seed": {}}',
    '{"series": "a", "epoch": 1, "train_loss": "x"}', '{"series": "a", "epoch": 1, "lr": [1]}', "[" * 5_000, "3",
    '{"series": "a", "epoch": 1' + "0" * 400 + "}"])
def test_a_record_of_metrics_that_is_none_is_named_by_its_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text('{"series": "a", "epoch": 1}\n' + line + "\n")
    with pytest.raises(UserError, match=r"metrics.jsonl, line 2: not a record of metrics"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_a_run_whose_files_were_changed_is_not_resumed(tmp_path):
    bad = folder(tmp_path / "bad", environment={"resumed": 1})
    (bad / "result.json").unlink()
    with pytest.raises(UserError, match=r"environment.json: cannot be read"):
        Run(folder=bad, resume=True)
    assert json.loads((bad / "environment.json").read_text()) == {"resumed": 1}
