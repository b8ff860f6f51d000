"""A small HTTP server on 127.0.0.1 for tests: ranges, connections cut short, wrong status, slowness, a request log."""
from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Route:
    """What one path answers. cuts : bytes sent before the connection is cut, one number a request."""

    body: bytes = b""
    etag: str | None = '"one"'
    status: int = 200
    cuts: list = field(default_factory=list)
    chunk: int = 1 << 16
    delay: float = 0.0  # seconds between chunks
    ranges: bool = True
    redirect: str | None = None
    declared: int | None = None  # a false Content-Length; 0: none at all


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        route = self.server.routes.get(self.path)
        if route is None:
            self.send_error(404)
            return
        if route.redirect:
            self.send_response(302)
            self.send_header("Location", route.redirect)
            self.end_headers()
            return
        start = self._start(route)
        body = route.body[start:]
        self.send_response(206 if start else route.status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(route.body) - 1}/{len(route.body)}")
        if route.etag:
            self.send_header("ETag", route.etag)
        if route.declared != 0:
            self.send_header("Content-Length", str(route.declared or len(body)))
        self.end_headers()
        self._send(route, body)

    def _start(self, route):
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range") in (None, route.etag)
        return int(asked[6:].split("-")[0]) if asked and same and route.ranges else 0

    def _send(self, route, body):
        body = body[:route.cuts.pop(0)] if route.cuts else body
        with contextlib.suppress(OSError):
            for first in range(0, len(body), route.chunk):
                self.wfile.write(body[first:first + route.chunk])
                time.sleep(route.delay)


@contextlib.contextmanager
def serving(routes: dict[str, Route]):
    """Serves for the block; the server has `.url` (without a slash at the end) and `.requests`, (path, range) pairs."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.routes, server.requests = routes, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
