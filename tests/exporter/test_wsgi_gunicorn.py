"""Flask and Django under a real gunicorn: sync and threaded workers, streams, and clients that leave."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

FLASK = """
import time
import flask
from anvil_monitor.exporter import instrument
from anvil_monitor.targets import load

app = flask.Flask(__name__)

@app.get("/items/<int:number>")
def item(number):
    return {"number": number}

@app.get("/file")
def file():
    return flask.send_file(__file__)

@app.post("/upload")
def upload():
    return str(len(flask.request.get_data()))

@app.get("/slow")
def slow():
    time.sleep(1.5)
    return "slow"

@app.get("/endless")
def endless():
    def parts():
        while True:
            yield b"x" * 100_000
    return flask.Response(parts())

instrument(app, configuration=load(None, {}), directory="pages")
"""

DJANGO = """
from django.conf import settings
settings.configure(DEBUG=False, SECRET_KEY="x", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"])
from django.http import FileResponse, HttpResponse, JsonResponse
from django.urls import include, path, re_path

def item(request, number):
    return JsonResponse({"number": number})

def broken(request):
    raise ValueError("secret")

def upload(request):
    return HttpResponse(str(len(request.body)))

urlpatterns = [
    path("shop/", include([path("items/<int:number>/", item)])),
    re_path(r"^old/(?P<number>[0-9]+)$", item),
    path("broken", broken),
    path("upload", upload),
    path("file", lambda request: FileResponse(open(__file__, "rb"))),
]
"""
DJANGO_WSGI = (
    DJANGO
    + """
from django.core.wsgi import get_wsgi_application
from anvil_monitor.exporter import instrument_wsgi
from anvil_monitor.targets import load
app = instrument_wsgi(get_wsgi_application(), configuration=load(None, {}), directory="pages")
"""
)
DJANGO_ASGI = (
    DJANGO
    + """
from django.core.asgi import get_asgi_application
from anvil_monitor.exporter import instrument_asgi
from anvil_monitor.targets import load
app = instrument_asgi(get_asgi_application(), configuration=load(None, {}), directory="pages")
"""
)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 15 s"
        time.sleep(0.02)


class Gunicorn:
    """A gunicorn of its own in ``folder``."""

    def __init__(self, folder: Path, program: str, *arguments: str) -> None:
        (folder / "program.py").write_text(program)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{self.port}", "--no-control-socket",
             "--graceful-timeout", "2", *arguments, "program:app"],
            cwd=folder, stdout=self.log, stderr=self.log,
        )  # fmt: skip
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=10)
        until(self._up)

    def _up(self) -> bool:
        assert self.process.poll() is None, Path(self.log.name).read_text()
        try:
            return self.client.get("/metrics").status_code == 200
        except httpx.TransportError:
            return False

    def samples(self, name: str) -> list[tuple[dict[str, str], float]]:
        text = self.client.get("/metrics").text
        return [(s.labels, s.value) for f in text_string_to_metric_families(text) for s in f.samples if s.name == name]

    def answers(self) -> dict[tuple[str, str, str | None], float]:
        """Answers by route, status and error."""
        return {
            (labels["http_route"], labels["http_response_status_code"], labels.get("error_type")): value
            for labels, value in self.samples("http_server_request_duration_seconds_count")
        }

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


@pytest.fixture(params=[("--workers=2",), ("--worker-class=gthread", "--workers=2", "--threads=4", "--preload")])
def flask(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gunicorn]:
    server = Gunicorn(tmp_path, FLASK, *request.param)
    yield server
    server.close()


def test_flask_over_workers(flask: Gunicorn, tmp_path: Path) -> None:
    """Every answer of every worker is counted, whichever worker is asked; sizes are those of the wire."""
    for number in range(30):
        httpx.get(f"{flask.client.base_url}/items/{number}", trust_env=False)
    flask.client.get("/nowhere")
    flask.client.post("/upload", content=b"x" * 5000)
    flask.client.post("/upload", content=iter([b"y" * 300, b"z" * 200]))
    assert flask.client.get("/file").content == (tmp_path / "program.py").read_bytes()
    until(lambda: sum(flask.answers().values()) == 34)
    assert flask.answers() == {
        ("/items/<int:number>", "200", None): 30, ("(unmatched)", "404", None): 1, ("/upload", "200", None): 2,
        ("/file", "200", None): 1,
    }  # fmt: skip
    assert flask.samples("http_server_request_body_size_bytes_sum")[0][1] == 5500
    sizes = {labels["http_route"]: value for labels, value in flask.samples("http_server_response_body_size_bytes_sum")}
    assert sizes["/file"] == len(FLASK)
    assert flask.samples("http_server_active_requests") == [
        ({"http_request_method": "GET"}, 0), ({"http_request_method": "POST"}, 0),
    ]  # fmt: skip
    assert flask.samples("process_count")[0][1] == 3


def test_a_slow_request_is_seen_by_another_worker_or_thread(flask: Gunicorn) -> None:
    """While one request waits, a scrape shows it in flight and its age."""
    with socket.create_connection(("127.0.0.1", flask.port)) as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: (flask.samples("http_server_oldest_request_age_seconds") or [({}, 0.0)])[0][1] > 0.1)
        assert flask.samples("http_server_active_requests")[0][1] == 1
        assert b"200 OK" in connection.recv(1000)
    until(lambda: flask.samples("http_server_active_requests")[0][1] == 0)


def test_a_client_that_leaves_a_stream(flask: Gunicorn) -> None:
    """The endless answer ends with its client, and is said to."""
    with socket.create_connection(("127.0.0.1", flask.port)) as connection:
        connection.sendall(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in connection.recv(1000)
    until(flask.answers)
    assert flask.answers() == {("/endless", "200", "client_disconnected"): 1}


@pytest.fixture(params=["wsgi", "asgi"])
def django(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Gunicorn]:
    arguments = ["--worker-class=uvicorn_worker.UvicornWorker"] if request.param == "asgi" else []
    server = Gunicorn(tmp_path, DJANGO_ASGI if request.param == "asgi" else DJANGO_WSGI, *arguments)
    yield server
    server.close()


def test_django(django: Gunicorn) -> None:
    """Both ways to run Django give its own templates, the name of an exception, and the sizes."""
    for number in range(3):
        assert django.client.get(f"/shop/items/{number}/").json() == {"number": number}
    assert django.client.get("/old/7").status_code == 200
    assert django.client.get("/broken").status_code == 500
    assert django.client.get("/nowhere").status_code == 404
    assert django.client.get("/file").status_code == 200
    assert django.client.post("/upload", content=b"x" * 900).text == "900"
    until(lambda: sum(django.answers().values()) == 8)
    found = django.answers()
    assert found.pop(("/upload", "200", None)) == 1
    assert found == {
        ("/shop/items/<int:number>/", "200", None): 3, ("/old/(?P<number>[0-9]+)", "200", None): 1,
        ("/broken", "500", "ValueError"): 1, ("(unmatched)", "404", None): 1, ("/file", "200", None): 1,
    }  # fmt: skip
    assert django.samples("http_server_request_body_size_bytes_sum")[0][1] == 900
    sent = django.samples("http_server_response_body_size_bytes_sum")
    sizes = {labels["http_route"]: value for labels, value in sent}
    assert sizes["/shop/items/<int:number>/"] == 3 * len(b'{"number": 0}')
    assert sizes["/file"] > 500


@pytest.mark.parametrize("path", ["/slow", "/items/1"])
def test_a_worker_that_is_broken_off_did_not_end_in_an_orderly_way(tmp_path: Path, path: str) -> None:
    """gunicorn ends a worker that has been silent for too long: that is a crash. One without a request is reloaded."""
    program = FLASK.replace("time.sleep(1.5)", "time.sleep(60)")
    gunicorn = Gunicorn(tmp_path, program, "--timeout", "2" if path == "/slow" else "30")
    try:
        if path == "/slow":
            with contextlib.suppress(httpx.TransportError):
                gunicorn.client.get(path)
            log = Path(gunicorn.log.name)
            until(lambda: "WORKER TIMEOUT" in log.read_text())
            until(gunicorn._up)
        else:
            assert gunicorn.client.get(path).status_code == 200
            gunicorn.process.send_signal(signal.SIGHUP)
            until(lambda: gunicorn._up() and gunicorn.samples("anvil_monitor_workers_ended_total") == [({}, 1.0)])
        assert gunicorn.samples("anvil_monitor_workers_ended_total") == [({}, float(path != "/slow"))]
    finally:
        gunicorn.close()
