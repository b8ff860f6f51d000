"""`gluon-ft serve`: the answers of predict over HTTP, bounds on what is sent, and a clean end."""
from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
from dataclasses import replace

import pytest
from conftest import cli_runner
from export_runs import pictures_fixture, run_fixture  # noqa: F401  (fixtures)
from http_clients import ask, at_once, form, predict

from gluon_ft.cli.main import main
from gluon_ft.errors import ConfigError, NetworkError, WeightsError
from gluon_ft.evaluation import model as models
from gluon_ft.serving.batching import Batcher
from gluon_ft.serving.predictor import Predictor
from gluon_ft.serving.server import Options, serving

for package in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package)

SMALL = Options(port=0, max_mb=1, max_images=4, max_megapixels=1, queue=16)
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@pytest.fixture(scope="module", name="server")
def server_fixture(run):
    with serving(run, SMALL) as running:
        yield running


@pytest.fixture(scope="module", name="files")
def files_fixture(pictures):
    return [(path.name, path.read_bytes()) for path in sorted(pictures.rglob("*.png"))]


def test_answers_are_those_of_predict(server, run, pictures, files):
    done = cli_runner().invoke(main, ["predict", str(run), str(pictures), "--top", "5", "--json"])
    expected = json.loads(done.stdout.splitlines()[-1])["predictions"]
    assert len(expected) == len(files) == 12
    found = [row for i in range(0, 12, 4) for row in predict(server.url, *files[i:i + 4])[1]["predictions"]]
    assert {row["path"] for row in found} == {name for name, _ in files}
    for row, other in zip(found, expected):
        assert (row["class"], row["unknown"], [one["class"] for one in row["top"]]) == (
            other["class"], other["unknown"], [one["class"] for one in other["top"]])
        assert row["probability"] == pytest.approx(other["probability"], abs=1e-5)
        assert row["distance"] == pytest.approx(other["distance"], abs=1e-5)
        assert row.keys() == other.keys()


def test_a_file_that_cannot_be_read_leaves_the_others(server, files):
    status, found, _ = predict(server.url, files[0], ("../../etc/passwd", b"root:x:0:0"), files[1])
    assert status == 200
    assert [row["path"] for row in found["predictions"]] == [files[0][0], files[1][0]]
    assert found["unreadable"] == [{"path": "../../etc/passwd", "reason": "not an image (begins with b'root:x:0:0')"}]


@pytest.mark.parametrize("name, data, reason", [
    ("empty.png", b"", "empty file (0 bytes)"),
    ("text.jpg", b"hello, this is text", "not an image"),
    ("short.png", PNG, "damaged header"),
    ("bomb.png", PNG + (60000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00" + b"\0" * 64, "damaged header"),
    ("bomb.bmp", b"BM" + b"\0" * 12 + (40).to_bytes(4, "little") + (30000).to_bytes(4, "little") * 2
     + (1).to_bytes(2, "little") + (24).to_bytes(2, "little") + b"\0" * 24, "900 megapixels, at most 1 are decoded"),
])
def test_no_image_at_all_is_an_error_of_its_own(server, name, data, reason):
    status, found, _ = predict(server.url, (name, data))
    assert status == 422 and found["predictions"] == []
    assert reason in found["unreadable"][0]["reason"]


def test_a_truncated_image_is_refused(server, files):
    status, found, _ = predict(server.url, ("cut.png", files[0][1][:-40]))
    assert status == 422 and "damaged or truncated" in found["unreadable"][0]["reason"]


@pytest.mark.parametrize("body, kind, status, text", [
    (b"x" * 100, "image/png", 415, "multipart/form-data"),
    (b"x" * 100, None, 415, "multipart/form-data"),
    (b"x" * 100, "multipart/form-data", 400, "boundary"),
    (b"x" * 100, "multipart/form-data; boundary=abc", 400, ""),
    (b'--abc\r\nContent-Disposition: form-data; name="a"\r\n\r\ntext\r\n--abc--\r\n',
     "multipart/form-data; boundary=abc", 400, "field 'a' is text"),
    (b"--abc--\r\n", "multipart/form-data; boundary=abc", 400, "there is none"),
])
def test_what_is_no_form_with_files_is_refused(server, body, kind, status, text):
    found = ask(server.url, "/predict", body, kind)
    assert found[0] == status
    assert text in json.loads(found[2])["error"]


def test_too_many_images_and_bytes_are_refused(server, files):
    status, found, _ = predict(server.url, *files[:5])
    assert (status, found) == (413, {"error": "at most 4 images a request (--max-images)"})
    status, found, _ = predict(server.url, ("large.png", b"\0" * 1_000_001))
    assert (status, found) == (413, {"error": "at most 1 MB a request (--max-mb)"})
    # Without a length in the headers the bytes are counted as they come.
    body, kind = form(("large.png", b"\0" * 1_200_000))
    pieces = (body[i:i + 100_000] for i in range(0, len(body), 100_000))
    assert ask(server.url, "/predict", pieces, kind)[0] == 413
    assert predict(server.url, files[0])[0] == 200


def test_description_health_counters_and_page(server, files):
    before = server.totals()
    predict(server.url, files[0], ("x.png", b"x"))
    after = server.totals()
    assert {name: after[name] - before[name] for name in after} == {"requests": 1, "predicted": 1, "unreadable": 1}
    described = json.loads(ask(server.url, "/openapi.json")[2])
    assert described["openapi"] == "3.1.0" and set(described["paths"]) == {"/predict", "/healthz", "/metrics"}
    assert described["components"]["schemas"]["Class"]["enum"] == ["blau", "grün", "red | <b>"]
    status, _, body = ask(server.url, "/healthz")
    assert (status, json.loads(body)) == (200, {"status": "ok", "waiting": 0, "model_changed_on_disk": False})
    text = ask(server.url, "/metrics")[2].decode()
    assert 'gluon_ft_requests_total{path="/predict",status="200"}' in text and "gluon_ft_batch_images_count" in text
    status, _, body = ask(server.url, "/")
    assert status == 200 and b"red | &lt;b&gt;" in body and b"https:" not in body
    assert ask(server.url, "/nothing")[0] == 404 and ask(server.url, "/predict")[0] == 405


def test_only_this_machine_is_answered(server):
    assert ask(server.url, "/", Host="evil.example:80")[0] == 403
    assert ask(server.url, "/", Host="localhost:8000")[0] == 200


def test_several_clients_share_batches(server, files):
    answers = at_once([lambda file=file: predict(server.url, file) for file in files], 12)
    assert [(status, found["predictions"][0]["path"]) for status, found, _ in answers] == [
        (200, name) for name, _ in files]


def test_more_than_may_wait_is_refused_until_there_is_room(run, files):
    with serving(run, replace(SMALL, queue=4)) as server:
        answers = at_once([lambda: predict(server.url, *files[:3]) for _ in range(12)], 12)
        refused = [headers for status, _, headers in answers if status == 503]
        assert {status for status, _, _ in answers} <= {200, 503} and 0 < len(refused) < 12
        assert all(headers["Retry-After"] == "1" for headers in refused)
        assert predict(server.url, *files[:4])[0] == 200


class Stalled(Predictor):
    """Waits before each batch after the first, and cannot compute the image that is called 'bad'."""

    go = threading.Event()
    go.set()

    def predict(self, prepared, names):
        assert self.go.wait(20)
        if "bad" in names:
            raise NetworkError("the network's output is not finite", path="bad")
        return super().predict(prepared, names)


def test_batches_are_bounded_and_a_bad_image_harms_no_other(run, files):
    sizes = []
    with Stalled(models.load_model(run), batch_size=4) as predictor:
        batcher = Batcher(predictor, 20, 2, seen=sizes.append)
        predictor.go.clear()
        names = ["bad" if i == 3 else f"{i}" for i in range(9)]
        coming = [batcher.submit(name, lambda i=i: files[i][1]) for i, name in enumerate(names)]
        predictor.go.set()
        batcher.close()  # answers what was submitted
    assert [one.result().path for one in coming if one.exception() is None] == [n for n in names if n != "bad"]
    assert isinstance(coming[3].exception(), NetworkError)
    assert sum(sizes) == 9 and max(sizes) <= 4


def test_a_port_in_use_and_bad_options_are_one_line(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = cli_runner().invoke(main, ["serve", str(run), "--port", str(port)])
    assert done.exit_code == 2
    assert done.stderr == (f"error: cannot listen on 127.0.0.1, port {port}; found address already in use; give "
                           "another --port (0: one that is free) or --host\n")
    for change in ({"max_megapixels": 0}, {"max_mb": -1}, {"max_images": 17}):
        with pytest.raises(ConfigError):
            replace(SMALL, **change)
    elsewhere = replace(SMALL, host="no.invalid")
    with pytest.raises(ConfigError, match="not an address to listen on"), serving(run, elsewhere):
        pass


def test_a_package_that_is_missing_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    done = cli_runner().invoke(main, ["serve", str(run)])
    assert done.exit_code == 2
    assert done.stderr == "error: serving needs the package uvicorn; pip install uvicorn; see gluon-ft doctor\n"


def test_a_model_that_changes_on_disk_is_told(run, tmp_path, files):
    copy = shutil.copytree(run, tmp_path / "run")
    with serving(copy, SMALL) as server:
        with open(copy / "best.params", "ab") as file:
            file.write(b"x")
        assert json.loads(ask(server.url, "/healthz")[2])["model_changed_on_disk"] is True
        assert predict(server.url, files[0])[0] == 200
    with pytest.raises(WeightsError, match=r"best\.params"), serving(copy, SMALL):
        pass
