"""``beacon.js`` as it is served."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from anvil_monitor.exporter import instrument
from anvil_monitor.exporter.beacon import script
from anvil_monitor.targets import load

URL = "/anvil-monitor/beacon.js"


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    app = FastAPI()
    instrument(app, configuration=load(None, {}), directory=tmp_path)
    return TestClient(app)


def test_it_is_under_3_kb(client: TestClient) -> None:
    """Compressed as any server would; nothing else is loaded by it."""
    plain, packed, _ = script()
    assert len(gzip.compress(plain, 9)) < 3000
    assert len(packed) < 3000
    assert b"import" not in plain


def test_only_comments_are_left_out() -> None:
    """The rule is safe because every comment has its line, and no text in the script runs over one."""
    source = resources.files("anvil_monitor.exporter").joinpath("beacon.js").read_text(encoding="utf-8")
    for line in source.splitlines():
        assert "//" not in line.replace("https://", "") or line.strip().startswith("//")
        assert "/*" not in line
        assert line.count("`") % 2 == 0
    served = script()[0].decode().splitlines()
    kept = [line.strip() for line in source.splitlines() if line.strip() and line.strip()[:2] != "//"]
    assert served == kept


@pytest.mark.needs("node")
def test_it_parses(tmp_path: Path) -> None:
    """As source and as served."""
    file = tmp_path / "beacon.js"
    file.write_bytes(script()[0])
    subprocess.run([shutil.which("node") or "node", "--check", str(file)], check=True)


def test_it_is_cached(client: TestClient) -> None:
    """With a time to live and a tag: who has it is told so in an empty answer."""
    answer = client.get(URL)
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert "max-age" in answer.headers["cache-control"]
    assert answer.headers["vary"] == "Accept-Encoding"
    again = client.get(URL, headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == answer.headers["etag"]
    assert client.get(URL, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("br, GZIP;q=0.5", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0", None),
        ("gzip; q=0.00", None),
        ("identity", None),
        ("", None),
        ("x-gzipped", None),
    ],
)
def test_it_is_compressed_for_who_takes_that(client: TestClient, accepted: str, coding: str | None) -> None:
    """Only then; the text is the same."""
    answer = client.get(URL, headers={"Accept-Encoding": accepted})
    assert answer.headers.get("content-encoding") == coding
    assert answer.content == script()[0]
    assert int(answer.headers["content-length"]) == len(script()[1] if coding else script()[0])


def test_other_methods(client: TestClient) -> None:
    """HEAD tells the length only; OPTIONS the methods; others are refused."""
    head = client.head(URL, headers={"Accept-Encoding": "identity"})
    assert (head.content, head.headers["content-length"]) == (b"", str(len(script()[0])))
    assert client.options(URL).headers["allow"] == "GET, HEAD, OPTIONS"
    assert client.post(URL).status_code == 405


def test_any_page_may_load_it(client: TestClient) -> None:
    """Also one of another origin, one that isolates itself, and never as anything but a script."""
    headers = client.get(URL).headers
    assert headers["access-control-allow-origin"] == "*"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert headers["x-content-type-options"] == "nosniff"
