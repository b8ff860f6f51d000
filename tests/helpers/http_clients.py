"""HTTP clients of tests: forms with files, several connections at once, and bytes as they are."""
from __future__ import annotations

import http.client
import json
import threading
import uuid
from urllib.parse import urlsplit


def form(*files: tuple[str, bytes], field: str = "image") -> tuple[bytes, str]:
    """(body, content type) of a form with files, (name, bytes) each."""
    mark = uuid.uuid4().hex
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
             "Content-Type: application/octet-stream\r\n\r\n".encode() + data + b"\r\n" for name, data in files]
    return b"".join([*parts, f"--{mark}--\r\n".encode()]), f"multipart/form-data; boundary={mark}"


def ask(url: str, path: str, body: bytes | None = None, kind: str | None = None, timeout: float = 120, **headers):
    """(status, headers, bytes) of one request: POST where there is a body."""
    where = urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    try:
        connection.request("GET" if body is None else "POST", path, body,
                           {**({"Content-Type": kind} if kind else {}), **headers})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def predict(url: str, *files: tuple[str, bytes], timeout: float = 120):
    """(status, decoded answer, headers) of POST /predict."""
    status, headers, body = ask(url, "/predict", *form(*files), timeout=timeout)
    return status, json.loads(body), headers


def at_once(tasks, clients: int) -> list:
    """The results of functions, called by so many threads; an exception stands in its place."""
    results, positions, lock = [None] * len(tasks), iter(range(len(tasks))), threading.Lock()

    def work():
        while True:
            with lock:
                position = next(positions, None)
            if position is None:
                return
            try:
                results[position] = tasks[position]()
            except Exception as error:
                results[position] = error

    threads = [threading.Thread(target=work) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
