"""JSON and TOML of strangers: read within limits, refused with a reason, and never with another kind of error."""
from __future__ import annotations

import json
import re

import pytest
from conftest import ROOT

from gluon_ft.io import documents

# The readers of a format of their own limits, and the symbols that MXNet itself has just written.
OTHER_READERS = {"gluon_ft/io/documents.py", "gluon_ft/weights/readers/safetensors_files.py",
                 "gluon_ft/models/graph.py"}

JSON_REFUSED = {
    "50,000 levels": ('{"a":' * 50_000 + "1" + "}" * 50_000, "nested more than 32 levels"),
    "5,000 brackets": ("[" * 5_000, "nested more than 32 levels"),
    "33 levels": ("[" * 33 + "]" * 33, "nested more than 32 levels"),
    "not UTF-8": (b'{"a": "\xff"}', "not UTF-8 \\(byte 0xff at 7\\)"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-16; save it as UTF-8"),
    "400 digits": ('{"a": ' + "9" * 400 + "}", "64 bits do not hold"),
    "20,000 digits": ('{"a": ' + "9" * 20_000 + "}", "64 bits do not hold"),
    "more than 64 bits": ('{"a": 18446744073709551616}', "64 bits do not hold"),
    "an infinite exponent": ('{"a": 1e400}', "64 bits do not hold"),
    "NaN": ('{"a": NaN}', "not finite \\(NaN\\)"), "infinity": ('{"a": -Infinity}', "not finite \\(-Infinity\\)"),
    "a name twice": ('{"a": 1, "b": {"c": 1, "c": 2}}', "'c' is given twice"),
    "half of a character": ('{"a": ["\\ud83d"]}', "half of a character"),
    "half of a character in a name": ('{"a": {"\\udfff": 1}}', "half of a character"),
    "cut short": ('{"a": "', "Unterminated string"), "nothing": ("", "Expecting value"),
}
TOML_REFUSED = {
    "5,000 brackets": ("a = " + "[" * 5_000, "nested more than 32 levels"),
    "5,000 tables": ("a = " + "{a=" * 5_000, "nested more than 32 levels"),
    "a name of 100,000 parts": ("a." * 100_000 + "a = 1", "more than 64 parts"),
    "a name of 40 parts": ("a." * 40 + "a = 1", "nested more than 32 levels"),
    "not UTF-8": (b'a = "\xff"', "not UTF-8"), "400 digits": ("a = " + "9" * 400, "64 bits do not hold"),
    "20,000 digits": ("a = " + "9" * 20_000, "."), "infinity": ("a = [1.0, inf]", "not finite \\(inf\\)"),
    "NaN": ("a = nan", "not finite"), "an infinite exponent": ("a = 1e400", "not finite"),
    "a name twice": ("a = 1\na = 2", "overwrite"), "a byte of zero": ("a = '\0'", "."),
}


@pytest.mark.parametrize("case", JSON_REFUSED)
def test_json_beyond_the_limits_is_refused(case):
    text, message = JSON_REFUSED[case]
    with pytest.raises(ValueError, match=message):
        documents.parse_json(text)


@pytest.mark.parametrize("case", TOML_REFUSED)
def test_toml_beyond_the_limits_is_refused(case):
    text, message = TOML_REFUSED[case]
    with pytest.raises(ValueError, match=message):
        documents.parse_toml(text)


@pytest.mark.parametrize("text", [
    '{"a": [1, -2.5, "x", null, true]}', "[" * 32 + "]" * 32, json.dumps(["[" * 60, "]{" * 60, '\\"[' * 60]),
    json.dumps(["a\udcff.jpg"]), json.dumps(["猫😀"]), "18446744073709551615", "-9223372036854775808", "1e308",
    "[" + ",".join(["[]"] * 200) + "]"])
def test_json_within_the_limits_is_as_the_standard_library_reads_it(text):
    assert documents.parse_json(text) == json.loads(text)
    assert documents.parse_json(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)


def test_toml_within_the_limits_is_read():
    text = '''a = "[[[" # [[[[
    b = """{{{ " [[[ """
    c = [[1, 2.5], ['[[', "\\"["]]
    d.e.f = 1
    [g]
    h = {i = [{j = 1}]}
    ''' + "\n".join(f"k{i} = [[]]" for i in range(40))
    table = documents.parse_toml(text)
    assert table["c"] == [[1, 2.5], ["[[", '"[']] and table["d"]["e"]["f"] == 1 and table["g"]["h"]["i"] == [{"j": 1}]


def test_a_file_that_is_too_long_is_not_read(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps("x" * 2000))
    with pytest.raises(ValueError, match="longer than 1,000 bytes"):
        documents.read_json(tmp_path / "a.json", 1000)
    with pytest.raises(ValueError, match="longer than"):
        documents.read_bytes("/dev/zero")


def test_names_of_files_that_are_not_utf8_come_back_exactly(tmp_path):
    value = {"name": "caf\udce9.jpg", "other": "猫"}
    (tmp_path / "a.json").write_bytes(documents.encoded(value))
    assert documents.read_json(tmp_path / "a.json") == value
    with pytest.raises(ValueError):
        documents.encoded({"a": float("nan")})


def test_only_documents_reads_json_and_toml():
    readers = {str(path.relative_to(ROOT)) for path in (ROOT / "gluon_ft").rglob("*.py")
               if re.search(r"\b(json|tomllib|tomli)\.loads?\(", path.read_text(encoding="utf-8"))}
    assert readers == OTHER_READERS
