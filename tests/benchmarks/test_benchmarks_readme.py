"""benchmarks/readme.py: the committed README is what is generated, and what is generated is what was measured."""
from __future__ import annotations

import pytest

from benchmarks import readme, runner
from benchmarks.accuracy import targets
from gluon_ft.errors import DataError

HEAD = ",".join(runner.COLUMNS)


def line(benchmark, quantity, value, settings="s; x.py --seeds 5", commit="abc", runs=5):
    return f"2026-01-0{runs},{commit},machine A,CPython 3,{benchmark},{settings},\"{quantity}\",fraction,{runs},{value}"


def written(folder, name, *lines, head=HEAD):
    (folder / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")


def of(name, *checks, **more):
    data = targets.Data("photos", "folder", 4, 2, path="photos")
    return targets.Target(name, f"Title of {name}", "s", "x.py", data, more.pop("device", "cpu"), 1, 5, checks, **more)


def test_the_readme_is_the_generated_one():
    assert readme.README.read_text(encoding="utf-8") == readme.render(), "run: python benchmarks/readme.py"


def test_nothing_that_was_measured_is_missing():
    text = readme.render()
    for path in runner.RESULTS.glob("*.csv"):
        assert path.stem == "accuracy" or f"\n## {path.stem}\n" in text
    for target in targets.load():
        assert f"| {target.title} |" in text


def test_a_target_shows_published_bounds_ours_and_hardware(tmp_path):
    found = [of("one", targets.Check("net", low=0.8, high=0.95, published="0.91"), weights="resnet18_v1b:tv_in1k"),
             of("two", targets.Check("net", ahead_of="scratch", from_epoch=2), device="gpu:8")]
    written(tmp_path, "accuracy",
            line("one", "net, validation accuracy", "0.9,0.88,0.92"),
            line("one", "net, validation accuracy", "0.91,0.89,0.931234", commit="def"),
            line("one", "net, validation accuracy", "0.5,0.5,0.5", settings="s; x.py --seeds 1", runs=1))
    text = readme.render(tmp_path, found)
    whole = "| Title of one | net, validation accuracy | 0.91 | 0.8 to 0.95 | 0.91 (0.89 to 0.9312) | 5 |"
    assert whole in text, "the latest of those with all seeds"
    other = ["Title of two", "net, validation accuracy, lead over scratch", "-", "above 0 from epoch 2 on",
             "not measured; needs gpu:8, data photos", "-"]
    assert " | ".join(other) in text
    assert "- machine A; CPython 3; 2026-01-05, commit def" in text
    assert "commit abc" not in text


def test_other_files_show_the_latest_of_each_setting(tmp_path):
    written(tmp_path, "speed", line("speed", "ours / theirs", "1.5,1.4,1.6", settings="net a|b"),
            line("speed", "ours / theirs", "2.5,2.5,2.5", settings="net a|b", commit="new"))
    written(tmp_path, "pack", "2026-01-01,aaa,im2rec,5", "2026-01-02,bbb,ours,1234.5", head="date,commit,tool,median")
    text = readme.render(tmp_path, [])
    assert "## speed" in text and "| net a\\|b | ours / theirs | fraction | 2.5 | 5 |" in text and "1.4" not in text
    assert "| tool | median |\n|---|---|\n| ours | 1234.5 |" in text and "im2rec" not in text
    assert "- 2026-01-02, commit bbb" in text


def test_long_tables_say_what_they_leave_out(tmp_path):
    written(tmp_path, "long", *(line("long", f"q{i}", "1,1,1") for i in range(readme.MOST + 3)))
    text = readme.render(tmp_path, [])
    assert f"The latest {readme.MOST} lines; 3 more are in the file." in text and "| q2 |" not in text


@pytest.mark.parametrize("content", ["", "a,b\n1,2\n", f"{HEAD}\n1,2\n"])
def test_what_is_no_file_of_results_is_an_error(tmp_path, content):
    (tmp_path / "bad.csv").write_text(content)
    with pytest.raises(DataError, match=r"bad\.csv: (not a file of results|row 1 has another number of columns)"):
        readme.render(tmp_path, [])


def ratio(benchmark, settings, quantity, value):
    return f"2026-01-01,abc,machine,CPython 3,{benchmark},\"{settings}\",\"{quantity}\",ratio,3,{value},{value},{value}"


def test_where_others_are_ahead_is_said_with_the_reason(tmp_path, monkeypatch):
    reasons = [{"settings": "PyTorch", "quantity": "per step", "why": "younger kernels"}]
    monkeypatch.setattr(readme.slower_than_peers, "load", lambda: reasons)
    written(tmp_path, "peers", ratio("peers", "steps, PyTorch", "time per step, theirs / ours", 0.8),
            ratio("peers", "steps, D2L", "time per step, theirs / ours", 1.4))
    text = readme.others_ahead(tmp_path)
    assert "| steps, PyTorch | time per step, theirs / ours | 0.8 | younger kernels |" in text and "D2L" not in text
    written(tmp_path, "training_speed", ratio("training_speed", "resnet", "gluon_ft float32 / torch float32", 0.9))
    with pytest.raises(DataError, match=r"no reason for being behind.*resnet; gluon_ft float32"):
        readme.others_ahead(tmp_path)
    monkeypatch.setattr(readme.slower_than_peers, "ahead_of_us", lambda rows: [])
    assert "Nowhere that was measured." in readme.others_ahead(tmp_path)
