"""The server under load, with damaged uploads, and told to stop: in a process of its own."""
from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
import pytest
from export_runs import pictures_fixture, run_fixture  # noqa: F401  (fixtures)
from http_clients import ask, at_once, form, predict

pytestmark = pytest.mark.slow
for package in ("starlette", "uvicorn", "python_multipart", "prometheus_client"):
    pytest.importorskip(package)


@contextlib.contextmanager
def served(model, *options):
    """A process of `gluon-ft serve`, with its `url`."""
    command = [sys.executable, "-m", "gluon_ft.cli.main", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        found = re.search(r"http://[\d.:]+", line)
        assert found, line + process.stderr.read()
        process.url = found[0]
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture(scope="module", name="files")
def files_fixture(pictures):
    return [(path.name, path.read_bytes()) for path in sorted(pictures.rglob("*.png"))]


def test_a_thousand_requests_of_twenty_clients(run, files):
    with served(run) as server:
        expected = [predict(server.url, file)[1]["predictions"][0] for file in files]
        seconds = []

        def request(number):
            begun = time.perf_counter()
            found = predict(server.url, files[number % len(files)])
            seconds.append(time.perf_counter() - begun)
            return found

        begun = time.perf_counter()
        answers = at_once([lambda n=n: request(n) for n in range(1000)], 20)
        taken = time.perf_counter() - begun
        for number, (status, found, _) in enumerate(answers):
            wanted, row = expected[number % len(files)], found["predictions"][0]
            assert status == 200 and row["class"] == wanted["class"]
            assert row["probability"] == pytest.approx(wanted["probability"], abs=1e-5)
        ranks = statistics.quantiles(seconds, n=20)
        print(f"{1000 / taken:.0f} requests/s, p50 {1e3 * ranks[9]:.0f} ms, p95 {1e3 * ranks[18]:.0f} ms")
        assert process_is_alive(server)


def process_is_alive(server) -> bool:
    return server.poll() is None and ask(server.url, "/healthz")[0] == 200


def damaged(random, good: list[bytes]) -> tuple[bytes, str | None]:
    """The body and content type of a request that cannot be answered as it stands."""
    data = bytearray(good[random.randint(len(good))])
    kind = random.randint(9)
    if kind == 0:
        return form(("cut.png", bytes(data[:random.randint(1, len(data) - 12)])))
    if kind == 1:
        data[random.randint(33, len(data))] ^= 255
        return form(("bits.png", bytes(data)))
    if kind == 2:
        return form(("noise.jpg", b"\xff\xd8\xff\xe0" + random.bytes(random.randint(5000))))
    if kind == 3:
        return form(("text.jpg", b"not a picture at all" * random.randint(1, 50)))
    if kind == 4:
        return form(("empty.png", b""))
    if kind == 5:
        side = random.randint(20_000, 60_000).to_bytes(4, "little")
        header = b"BM" + b"\0" * 12 + (40).to_bytes(4, "little") + side * 2 + b"\1\0\30\0"
        return form(("bomb.bmp", header + b"\0" * 24))
    if kind == 6:
        return bytes(data), ["image/png", "text/plain", "application/json", None][random.randint(4)]
    if kind == 7:
        body, mark = form(("cut.png", bytes(data)))
        return body[:random.randint(len(body) - 5)], mark
    return form(("huge.png", b"\0" * 2_500_000))


def test_a_thousand_damaged_uploads_crash_nothing_while_others_are_served(run, files):
    random, good = np.random.RandomState(0), [data for _, data in files]
    bad = [damaged(random, good) for _ in range(1000)]
    with served(run, "--max-mb", "2") as server:
        tasks = [lambda body=body, kind=kind: ask(server.url, "/predict", body, kind) for body, kind in bad]
        between = [lambda n=n: predict(server.url, files[n % len(files)]) for n in range(200)]
        # One good request after every five bad ones.
        mixed = [task for n in range(200) for task in (*tasks[5 * n:5 * n + 5], between[n])]
        answers = at_once(mixed, 20)
        assert [answer for answer in answers if isinstance(answer, Exception)] == []
        assert {answer[0] for answer in answers[5::6]} == {200}
        statuses = {answer[0] for number, answer in enumerate(answers) if number % 6 != 5}
        # A picture with one flipped bit may still be one, or damaged; nothing is the server's own failure.
        assert statuses <= {200, 400, 413, 415, 422} and {400, 413, 415, 422} <= statuses
        assert process_is_alive(server)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert "Traceback" not in server.stderr.read()


def test_connections_that_break_off_or_say_nothing(run, files):
    with served(run) as server:
        where = urlsplit(server.url)
        body, kind = form(files[0])
        head = (f"POST /predict HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: {kind}\r\n"
                f"Content-Length: {len(body)}\r\n")
        silent = [socket.create_connection((where.hostname, where.port)) for _ in range(50)]
        for number in range(50):
            with socket.create_connection((where.hostname, where.port)) as broken:
                broken.sendall((head.encode() + b"\r\n" + body)[:20 + 13 * number])
        assert predict(server.url, files[0])[0] == 200
        for one in silent:
            one.close()
        time.sleep(0.5)
        assert b'"waiting":0' in ask(server.url, "/healthz")[2]


def test_a_hundred_clients_at_once(run, files):
    with served(run) as server:
        answers = at_once([lambda n=n: predict(server.url, files[n % len(files)]) for n in range(400)], 100)
        assert [answer for answer in answers if isinstance(answer, Exception)] == []
        assert {answer[0] for answer in answers} == {200}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_asked_is_answered_at_the_end(run, files, number):
    with served(run, "--json") as server:
        answers = []
        threads = [threading.Thread(target=lambda: answers.append(predict(server.url, *files)[0])) for _ in range(15)]
        for thread in threads:
            thread.start()
        # Until all of them have been received.
        deadline = time.monotonic() + 20
        while len(answers) < 1 and time.monotonic() < deadline:
            time.sleep(0.001)
        os.kill(server.pid, number)
        for thread in threads:
            thread.join()
        assert server.wait(30) == 0
        out = server.stdout.read()
        # What had come before the signal was answered; whoever came later found the door closed, which is no status.
        assert set(answers) == {200} and f'"requests": {len(answers)}' in out
        assert "ending, once everything is answered" in out and server.stderr.read() == ""
