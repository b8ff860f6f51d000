"""Headless Chromium in tests, driven through chromedriver's HTTP interface (WebDriver, https://www.w3.org/TR/webdriver/)."""
from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import urllib.request
from pathlib import Path

import pytest

OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
           "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage")
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the standard's name of an element's reference


class Browser:
    """One page of a browser. console : what it logged that is an error or a warning."""

    def __init__(self, address, session):
        self._address, self._session = address, session

    def _call(self, path, values=None, method="POST"):
        return _request(f"{self._address}/session/{self._session}{path}", values, method)

    def open(self, path: Path, part: str = ""):
        self.visit(path.resolve().as_uri() + part)

    def visit(self, address: str):
        self._call("/url", {"url": address})

    def run(self, script: str, *arguments):
        """What the body of a JavaScript function returns."""
        return self._call("/execute/sync", {"script": script, "args": list(arguments)})

    def click(self, selector: str):
        found = self._call("/element", {"using": "css selector", "value": selector})
        self._call(f"/element/{found[_ELEMENT]}/click", {})

    def keys(self, selector: str, text: str):
        found = self._call("/element", {"using": "css selector", "value": selector})
        self._call(f"/element/{found[_ELEMENT]}/value", {"text": text})

    def command(self, name: str, **values):
        """A command of the DevTools protocol."""
        return self._call("/goog/cdp/execute", {"cmd": name, "params": values})

    def size(self, width: int, height: int = 900):
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                     mobile=False)

    def scheme(self, name: str):
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": name}])

    @property
    def console(self) -> list[str]:
        return [entry["message"] for entry in self._call("/se/log", {"type": "browser"})]


def dumped(page: Path, part: str, profile: Path) -> str:
    """The page's document once its script has run; skips the test without Chromium.

    page : the file. part : what follows its address, such as '#result'. profile : new folder for the browser's files.
    """
    program = shutil.which("chromium") or pytest.skip("chromium (Debian's package) is not installed")
    done = subprocess.run([program, *OPTIONS, f"--user-data-dir={profile}", "--dump-dom",
                           page.resolve().as_uri() + part], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@contextlib.contextmanager
def browser(folder: Path):
    """A `Browser`; skips the test where chromium or chromedriver is missing. folder : new, for its files."""
    programs = shutil.which("chromium"), shutil.which("chromedriver")
    if None in programs:
        pytest.skip("chromium or chromium-driver (Debian's packages) is not installed")
    driver = subprocess.Popen([programs[1], "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        port = next(match[1] for line in driver.stdout if (match := re.search(r"on port (\d+)\.", line)))
        address = f"http://127.0.0.1:{port}"
        wanted = {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"}, "goog:chromeOptions": {
            "binary": programs[0], "args": [*OPTIONS, f"--user-data-dir={folder / 'profile'}"]}}
        session = _request(f"{address}/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        try:
            yield Browser(address, session)
        finally:
            _request(f"{address}/session/{session}", None, "DELETE")
    finally:
        driver.terminate()
        driver.wait(10)
        driver.stdout.close()


def _request(address, values, method="POST"):
    data = None if values is None else json.dumps(values).encode()
    asked = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=60) as answer:
        return json.load(answer)["value"]
