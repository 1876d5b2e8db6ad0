"""Flask and any WSGI application: the same measurements as under ASGI."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from anvil_monitor.exporter import Instrument, instrument, instrument_wsgi
from anvil_monitor.exporter.instrument import instrument_of
from anvil_monitor.targets import load
from anvil_monitor.targets.load import parse

DURATION = "http_server_request_duration_seconds"


def samples(made: Instrument, name: str) -> list[tuple[dict[str, str], float]]:
    families = text_string_to_metric_families(made.metrics())
    return [(s.labels, s.value) for family in families for s in family.samples if s.name == name]


def answers(made: Instrument) -> list[tuple[str, str | None, str | None]]:
    """Route, status and error of each series of answers."""
    return [
        (labels["http_route"], labels.get("http_response_status_code"), labels.get("error_type"))
        for labels, _ in samples(made, f"{DURATION}_count")
    ]


def application() -> flask.Flask:
    app = flask.Flask(__name__)

    @app.get("/items/<int:number>")
    def item(number: int) -> dict[str, int]:
        return {"number": number}

    @app.get("/broken")
    def broken() -> str:
        raise ValueError("secret")

    @app.get("/unavailable")
    def unavailable() -> tuple[str, int]:
        return "", 503

    @app.get("/stream")
    def stream() -> flask.Response:
        return flask.Response(iter([b"12345"] * 3))

    @app.get("/half")
    def half() -> flask.Response:
        def parts() -> Iterator[bytes]:
            yield b"x"
            raise RuntimeError("in the middle")

        return flask.Response(parts())

    @app.post("/upload")
    def upload() -> str:
        return str(len(flask.request.get_data()))

    return app


@pytest.fixture
def measured(tmp_path: Path) -> tuple[Any, Instrument]:
    app = application()
    made = instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)
    return app.test_client(), made


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "error"),
    [
        ("GET", "/items/3", "/items/<int:number>", "200", None),
        ("HEAD", "/items/3", "/items/<int:number>", "200", None),
        ("GET", "/broken", "/broken", "500", "ValueError"),
        ("GET", "/unavailable", "/unavailable", "503", "503"),
        ("GET", "/items/x", "(unmatched)", "404", None),
        ("POST", "/items/3", "(unmatched)", "405", None),
    ],
)
def test_flask(
    measured: tuple[Any, Instrument], method: str, path: str, route: str, status: str, error: str | None
) -> None:
    """Route, status and error as under ASGI; 404s and 405s share one route; nothing is left in flight."""
    client, made = measured
    assert client.open(path, method=method).status_code == int(status)
    assert answers(made) == [(route, status, error)]
    assert samples(made, "http_server_active_requests") == [({"http_request_method": method}, 0)]
    assert samples(made, "http_server_oldest_request_age_seconds") == [({}, 0)]
    assert samples(made, "http_server_active_users") == [({}, 1)]


def test_sizes(measured: tuple[Any, Instrument]) -> None:
    """Bytes as they were sent, streamed or not; a request without a body leaves no record of one."""
    client, made = measured
    client.get("/items/3")
    client.get("/stream").get_data()
    client.post("/upload", data=b"x" * 700)
    sizes = {labels["http_route"]: value for labels, value in samples(made, "http_server_response_body_size_bytes_sum")}
    assert sizes == {"/items/<int:number>": len(b'{"number":3}\n'), "/stream": 15, "/upload": 3}
    assert samples(made, "http_server_request_body_size_bytes_sum") == [
        ({"http_request_method": "POST", "http_route": "/upload"}, 700)
    ]


def test_an_answer_that_breaks_off(measured: tuple[Any, Instrument]) -> None:
    """An exception in the middle of a stream is named beside the status that was sent."""
    client, made = measured
    with pytest.raises(RuntimeError):
        client.get("/half").get_data()
    assert answers(made) == [("/half", "200", "RuntimeError")]
    assert samples(made, "http_server_active_requests") == [({"http_request_method": "GET"}, 0)]


def test_our_own_endpoints(measured: tuple[Any, Instrument]) -> None:
    """/metrics and the beacon are answered under WSGI, and neither they nor the probe are traffic."""
    client, made = measured
    text = client.get("/metrics")
    assert (text.status_code, text.content_type.split(";")[0]) == (200, "text/plain")
    assert client.head("/metrics").data == b""
    assert client.post("/metrics").status_code == 405
    assert b"sendBeacon" in client.get("/anvil-monitor/beacon.js").data
    assert client.post("/anvil-monitor/beacon", data="{").status_code == 400
    assert client.post("/anvil-monitor/beacon", data=b"x" * 100_000).status_code == 413
    assert client.post("/anvil-monitor/beacon", json={"page": "/items/7", "load": 1.5}).status_code == 204
    client.get("/items/3", headers={"User-Agent": "anvil-monitor-probe"})
    assert answers(made) == []
    assert [labels for labels, _ in samples(made, "browser_page_load_duration_seconds_count")] == [
        {"url_template": "/items/<int:number>"}
    ]


def test_metrics_for_the_bearer_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token is asked for under WSGI, too."""
    app = application()
    configuration = parse('[[service]]\nname = "app"\nmetrics_token = "env:SCRAPE"\n')
    instrument(app, configuration=configuration, directory=tmp_path, meters=False, registry=False)
    monkeypatch.setenv("SCRAPE", "hush")
    assert app.test_client().get("/metrics").status_code == 401
    assert app.test_client().get("/metrics", headers={"Authorization": "Bearer hush"}).status_code == 200


def test_mounts(tmp_path: Path) -> None:
    """SCRIPT_NAME is part of the route: a proxy's prefix, and a mount's; what a client put there is not."""
    inner = application()
    app = instrument_wsgi(
        DispatcherMiddleware(flask.Flask("outer"), {"/shop": inner}), configuration=load(None, {}),
        directory=tmp_path, meters=False, registry=False,
    )  # fmt: skip
    made = instrument_of(app)
    assert made is not None
    assert get(app, "/shop/items/1")[0].startswith("200")
    assert get(app, "/nowhere")[0].startswith("404")
    assert sorted(route for route, _, _ in answers(made)) == ["(unmatched)", "/shop/items/<int:number>"]
    prefixed = application()
    made = instrument(prefixed, configuration=load(None, {}), directory=tmp_path / "b", meters=False, registry=False)
    get(prefixed, "/items/1", SCRIPT_NAME="/api")
    assert [route for route, _, _ in answers(made)] == ["/api/items/<int:number>"]
    assert get(prefixed, "/metrics", SCRIPT_NAME="/api")[0].startswith("200")


def get(app: Any, path: str, close: bool = True, **more: Any) -> tuple[str, list[bytes]]:
    """Ask ``app`` as a server does; ``close=False`` leaves after the first part."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET", "PATH_INFO": path, "SCRIPT_NAME": "", "SERVER_NAME": "x", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(), "REMOTE_ADDR": "10.0.0.1", "QUERY_STRING": "", **more,
    }  # fmt: skip
    status: list[str] = []

    def start(line: str, headers: Any, exc_info: Any = None) -> Any:
        status.append(line)
        return lambda data: None

    body = app(environ, start)
    parts = [next(iter(body))] if not close else list(body)
    if hasattr(body, "close"):
        body.close()
    return status[0], parts


def wrapped(app: Any, tmp_path: Path, **options: Any) -> tuple[Any, Instrument]:
    measured = instrument_wsgi(
        app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False, **options
    )
    made = instrument_of(measured)
    assert made is not None
    return measured, made


def test_any_application_with_a_route_of_ones_own(tmp_path: Path) -> None:
    """``route=`` gives the template from the environ; ``None`` and its failure mean "as usual"."""

    def app(environ: Any, start: Any) -> Iterable[bytes]:
        start("200 OK", [])
        return [b"x"]

    def route(environ: Any) -> str | None:
        if environ["PATH_INFO"] == "/fails":
            raise ValueError
        return "/things/{id}" if environ["PATH_INFO"].startswith("/things/") else None

    measured, made = wrapped(app, tmp_path, route=route)
    for path in ("/things/1", "/things/2", "/other", "/fails"):
        assert get(measured, path) == ("200 OK", [b"x"])
    counted = {labels["http_route"]: count for labels, count in samples(made, f"{DURATION}_count")}
    assert counted == {"(unmatched)": 2, "/things/{id}": 2}


def test_a_client_that_leaves(tmp_path: Path) -> None:
    """A server that closes an answer before its end has lost its client."""

    def app(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        yield b"a"
        yield b"b"

    measured, made = wrapped(app, tmp_path)
    get(measured, "/", close=False)
    assert answers(made) == [("(unmatched)", "200", "client_disconnected")]


def test_counted_before_it_is_sent(tmp_path: Path) -> None:
    """With a length known, or one part, the answer is counted when its last byte is handed over, not afterwards."""

    def app(environ: Any, start: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/list":
            start("200 OK", [])
            return [b"abc"]
        start("200 OK", [("Content-Length", "2")])
        return iter([b"a", b"b"])

    measured, made = wrapped(app, tmp_path)
    for path, parts in (("/list", 1), ("/length", 2)):
        body = iter(measured({"REQUEST_METHOD": "GET", "PATH_INFO": path}, lambda *_: None))
        for _ in range(parts):
            next(body)
        (_, count), = samples(made, f"{DURATION}_count")  # fmt: skip
        assert count == (1 if path == "/list" else 2)


def test_what_servers_look_at_is_kept(tmp_path: Path) -> None:
    """A file for the kernel to send stays the server's own object; the number of parts is visible; write() counts."""

    class Wrapper:
        def __init__(self, stream: Any) -> None:
            self.close = stream.close

        def __iter__(self) -> Iterator[bytes]:
            raise AssertionError("the kernel sends it")

    def app(environ: Any, start: Any) -> Any:
        if environ["PATH_INFO"] == "/file":
            start("200 OK", [("Content-Length", "4000")])
            return Wrapper(io.BytesIO())
        write = start("200 OK", [])
        write(b"12")
        return [b"345"]

    measured, made = wrapped(app, tmp_path)
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/file", "wsgi.file_wrapper": Wrapper}
    body = measured(environ, lambda *_: None)
    assert isinstance(body, Wrapper)
    body.close()
    body = measured({"REQUEST_METHOD": "GET", "PATH_INFO": "/"}, lambda *_: lambda data: None)
    assert len(body) == 1
    assert list(body) == [b"345"]
    assert samples(made, "http_server_response_body_size_bytes_sum")[0][1] == 4005


def test_a_chunked_body_is_counted_as_it_is_read(tmp_path: Path) -> None:
    """Without a Content-Length the bytes are those that the application read."""

    def app(environ: Any, start: Any) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        read = stream.read(10) + stream.readline() + b"".join(stream)
        start("200 OK", [])
        return [str(len(read)).encode()]

    measured, made = wrapped(app, tmp_path)
    stream = io.BytesIO(b"0123456789abc\ndef\nghi")
    assert get(measured, "/", **{"wsgi.input": stream, "HTTP_TRANSFER_ENCODING": "chunked"})[1] == [b"21"]
    assert samples(made, "http_server_request_body_size_bytes_sum")[0][1] == 21


def test_a_failing_measurement_never_reaches_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A recorder that raises in everything it does is logged once; every request is answered."""
    app = application()
    made = instrument(app, configuration=load(None, {}), directory=tmp_path, meters=False, registry=False)

    def fail(*_: object) -> None:
        raise RuntimeError("ours")

    for name in ("histogram", "gauge", "counter", "oldest"):
        monkeypatch.setattr(made.recorder, name, fail)
    client = app.test_client()
    assert [client.get("/items/3").status_code for _ in range(3)] == [200, 200, 200]
    assert len([record for record in caplog.records if "could not record" in record.message]) == 1
