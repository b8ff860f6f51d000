"""gluon-ft audit --labels: a planted flip is found, written for review, and left out by train --exclude-files."""
from __future__ import annotations

import csv
import json

import photos
import pytest
from PIL import Image
from train_runs import cli, content, gluon_ft_command, source_fixture  # noqa: F401  (a fixture)


def test_from_a_wrong_label_to_a_run_without_it(source, tmp_path):
    folder = photos.make(tmp_path / "photos", ("red", "green"))
    before = (folder / "red" / "03.png").rename(folder / "green" / "wrong.png").read_bytes()
    (folder / "red" / "bad.png").write_bytes(b"no image")
    table, page, sheet = (tmp_path / name for name in ("out.csv", "review.html", "review.png"))
    out = gluon_ft_command("audit", folder, "--labels", "--pretrained", source, "--suspects", table, "--review", page,
                           "--review", sheet, "--json")
    assert "1. green/wrong.png: labelled 'green'" in out and "note: not used, cannot be read: 1" in out
    found = json.loads(out.splitlines()[-1])["labels"]
    assert found["judged"] == 20 and found["suspects"][0]["suggested"] == "red"
    with open(table, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["file"] == str(folder / "green" / "wrong.png") and len(rows) == len(found["suspects"])
    text = page.read_text()
    assert text.count("data:image/jpeg") == text.count("<input type=\"checkbox\"") == len(rows)
    assert f'data-file="{rows[0]["file"]}"' in text and "http:" not in text and "https:" not in text
    assert Image.open(sheet).size[0] > 160
    assert (folder / "green" / "wrong.png").read_bytes() == before

    run = tmp_path / "run"
    cli(folder, "--backbone", "lenet", "--pretrained", "none", "--epochs", "1", "--run", run, "--exclude-files", table)
    known = content(run, "data")
    assert {"part": "train", "path": "green/wrong.png", "why": f"named in {table}"} in known["left_out"]
    used = [path for part in known["parts"].values() for path, _, _ in part["files"]]
    assert "green/wrong.png" not in used and len(used) == 20 - len(rows)
    assert content(run)["audit"]["excluded"] == len(rows)
    assert content(run, "config")["exclude_files"] == str(table)


@pytest.mark.parametrize(("options", "message"), [
    (["--suspects", "a.csv"], "are of --labels"), (["--labels", "--review", "a.txt"], "a page or a contact sheet"),
    (["--labels", "--suspects", "none/a.csv"], "cannot be written"),
    (["other", "--labels"], "labels are judged within one source"),
    (["--labels", "--pretrained", "none"], "this takes pretrained weights")])
def test_bad_options_are_one_line(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    photos.make("photos", ("red", "green"), count=3)
    assert message in gluon_ft_command("audit", "photos", *options, status=2)
