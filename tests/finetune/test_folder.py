"""The run's folder: one user at a time, its state, and what is left when a run fails."""
from __future__ import annotations

import pytest

from gluon_ft.errors import UserError
from gluon_ft.finetune import folder


def test_a_folder_has_one_user_and_goes_when_nothing_came_of_it(tmp_path):
    with folder.claimed(tmp_path / "a"):
        with pytest.raises(UserError, match="the run's folder is in use by another process; expected one process a "
                                            "folder"), folder.claimed(tmp_path / "a"):
            pass
        assert folder.state(tmp_path / "a") == "new"
    assert not (tmp_path / "a").exists()
    with folder.claimed(tmp_path / "a"):
        (tmp_path / "a" / "config.json").write_text("{}")
    assert folder.state(tmp_path / "a") == "unfinished"
    (tmp_path / "a" / "result.json").write_text("{}")
    assert folder.state(tmp_path / "a") == "finished"
    (tmp_path / "b").write_text("")
    with pytest.raises(UserError, match="cannot write the run's folder; expected a folder that can be written; found a "
                                        "file"), folder.claimed(tmp_path / "b"):
        pass


@pytest.mark.parametrize("made", [True, False])
def test_a_folder_that_failed_before_training_is_left_as_it_was(tmp_path, made):
    run = tmp_path / "a"
    run.mkdir()
    for name, stays in (("config.json", False), ("metrics.jsonl", True)):
        with pytest.raises(RuntimeError), folder.claimed(run, made=made):
            (run / "config.json").write_text("{}")
            (run / "cache").mkdir()
            (run / name).write_text("{}")
            raise RuntimeError
        assert run.exists() == (stays or not made)
        if run.exists():
            assert (run / "config.json").exists() == stays and (run / "cache").exists() == stays
        run.mkdir(exist_ok=True)
