"""Control groups: limits, kills, throttling, from files of both versions and a real container; finding containers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anvil_monitor.exporter import containers
from anvil_monitor.exporter.cgroup import Cgroups, groups
from anvil_monitor.exporter.finding import find
from anvil_monitor.exporter.host import ROOT_VARIABLE
from anvil_monitor.exporter.processes import ServerProcesses
from anvil_monitor.exporter.proctable import ProcTable
from anvil_monitor.targets import ProcessFinder, Service

V1 = b"".join(
    b"%d 25 0:30 / /sys/fs/cgroup/%s rw - cgroup cgroup rw,%s\n" % (number, name, name)
    for number, name in enumerate((b"memory", b"cpu,cpuacct", b"pids", b"devices"))
)
V2 = b"33 25 0:29 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
HYBRID = V1 + V2.replace(b"/sys/fs/cgroup", b"/sys/fs/cgroup/unified")
ID = "f5cc985e1886d27170935930585950a48380e8d2be0224153cba703b5573d2fc"


def a_host(folder: Path, mounts: bytes, member: bytes, **files: dict[str, str]) -> Cgroups:
    """A host below ``folder``: its mounts, the groups of process 50, and files by group folder (``__`` is a slash)."""
    for pid in ("1", "50"):
        (folder / "proc" / pid).mkdir(parents=True, exist_ok=True)
    (folder / "proc" / "1" / "mountinfo").write_bytes(mounts)
    (folder / "proc" / "50" / "cgroup").write_bytes(member)
    for group, texts in files.items():
        place = folder / "sys" / "fs" / "cgroup" / group.replace("__", "/")
        place.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (place / name).write_text(text)
    return Cgroups(proc=str(folder / "proc"), root=str(folder))


def told(cgroups: Cgroups) -> dict[str, float]:
    families = cgroups.families(50, "shop")
    assert {family.samples[0].labels for family in families} <= {(("service", "shop"),)}
    return {family.metric.name.removeprefix("container_"): family.samples[0].value for family in families}


def test_version_2(tmp_path: Path) -> None:
    """Limits, usage, working set, kills, throttling and pids of a group; the tighter limit of a group above counts."""
    cgroups = a_host(
        tmp_path, V2, b"0::/shop.slice/web.scope\n",
        **{"shop.slice": {"memory.max": "1000", "memory.current": "900", "cpu.max": "max 100000",
                                          "memory.stat": "anon 5\ninactive_file 300\n"},
        "shop.slice/web.scope": {"memory.max": "max", "memory.events": "low 0\noom 3\noom_kill 2\n",
                                 "cpu.max": "150000 100000", "pids.max": "64", "pids.current": "7",
                                 "cpu.stat": "usage_usec 9\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2500000\n"}},
    )  # fmt: skip
    assert told(cgroups) == {
        "memory_limit_bytes": 1000, "memory_usage_bytes": 900, "memory_working_set_bytes": 600,
        "memory_oom_kills_total": 2, "cpu_limit": 1.5, "cpu_throttled_seconds_total": 2.5, "cpu_periods_total": 10,
        "cpu_throttled_periods_total": 4, "thread_count": 7, "thread_limit": 64,
    }  # fmt: skip


def test_version_1(tmp_path: Path) -> None:
    """The same of the older files, each controller in a hierarchy of its own, beside a v2 one without controllers."""
    member = f"9:name=systemd:/x\n8:pids:/\n4:memory:/docker/{ID}\n2:cpu,cpuacct:/docker/{ID}\n0::/docker/{ID}\n"
    cgroups = a_host(
        tmp_path, HYBRID, member.encode(),
        **{f"memory/docker/{ID}": {"memory.limit_in_bytes": "67108864", "memory.usage_in_bytes": "5000",
                                   "memory.stat": "inactive_file 1\ntotal_inactive_file 2000\n",
                                   "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"},
           "memory": {"memory.limit_in_bytes": "9223372036854771712"},
           f"cpu,cpuacct/docker/{ID}": {"cpu.cfs_quota_us": "50000", "cpu.cfs_period_us": "100000",
                                        "cpu.stat": "nr_periods 31\nnr_throttled 15\nthrottled_time 483424328\n"}},
    )  # fmt: skip
    assert told(cgroups) == {
        "memory_limit_bytes": 67108864, "memory_usage_bytes": 5000, "memory_working_set_bytes": 3000,
        "memory_oom_kills_total": 1, "cpu_limit": 0.5, "cpu_throttled_seconds_total": 0.483424328,
        "cpu_periods_total": 31, "cpu_throttled_periods_total": 15,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("mounts", "member", "files"),
    [
        (V2, b"0::/\n", {"": {"cgroup.procs": ""}}),
        (V1, b"4:memory:/\n2:cpu,cpuacct:/\n", {"memory": {"memory.limit_in_bytes": "9223372036854771712",
                                                           "memory.oom_control": "oom_kill 3"}}),
        (V1, b"2:cpu,cpuacct:/a\n", {"cpu,cpuacct/a": {"cpu.cfs_quota_us": "-1", "cpu.cfs_period_us": "100000",
                                                       "cpu.stat": "nr_throttled 3"}}),
        (V2, b"0::/a\n", {"a": {"memory.max": "max", "cpu.max": "max 100000", "pids.max": "max"}}),
        (V2, b"0::/../other.scope\n", {"other.scope": {"memory.max": "5"}}),
        (V2.replace(b" / /sys", b" /mine /sys"), b"0::/minelike\n", {"like": {"memory.max": "5"}}),
        (b"", b"0::/a\n", {"a": {"memory.max": "5"}}),
    ],
    ids=["root of v2", "root of v1", "no quota", "unlimited",
         "outside of the namespace", "outside of the mount", "no cgroups"],
)  # fmt: skip
def test_nothing_where_there_is_no_limit(
    tmp_path: Path, mounts: bytes, member: bytes, files: dict[str, dict[str, str]]
) -> None:
    """The root group, groups without a limit, groups that cannot be seen, no cgroups at all: not one sample."""
    assert told(a_host(tmp_path, mounts, member, **files)) == {}


def test_a_container_that_sees_only_its_own_group(tmp_path: Path) -> None:
    """Without a namespace of its own the path names the whole way, but only the last part is mounted."""
    mounts = V2.replace(b" / /sys", f" /docker/{ID} /sys".encode())
    cgroups = a_host(
        tmp_path, mounts, f"0::/docker/{ID}\n".encode(), **{"": {"memory.max": "5", "memory.current": "4"}}
    )
    assert told(cgroups)["memory_limit_bytes"] == 5


def test_a_reader_in_a_namespace_with_the_hosts_groups_mounted(tmp_path: Path) -> None:
    """Ways begin at the reader's own group; the mount tells how far up it is, and the container is found below it."""
    mounts = V2.replace(b" / /sys", b" /../.. /sys")
    files = {f"system.slice/docker-{ID}.scope": {"memory.max": "5"}, "system.slice/a": {"memory.max": "6"},
             "user.slice/a": {"memory.max": "7"}, "top": {"memory.max": "8"}}  # fmt: skip
    for member, limit in ((f"/../docker-{ID}.scope", 5), ("/../../user.slice/a", 7), ("/../../top", 8), ("/../a", None),
                          ("/../../../top", None), ("/../gone", None), ("/", None), ("/..", None)):  # fmt: skip
        found = told(a_host(tmp_path, mounts, f"0::{member}\n".encode(), **files))
        assert found.get("memory_limit_bytes") == limit, member


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(mounts=st.binary(max_size=80), member=st.binary(max_size=80), text=st.text(max_size=60))
def test_garbage_is_survived(tmp_path: Path, mounts: bytes, member: bytes, text: str) -> None:
    """Whatever stands in the files: families or none, no error, nothing outside of the mounts."""
    groups(V1 + mounts + V2, member)
    text = text.replace("\r", "").encode("utf-8", "replace").decode()
    names = (
        "memory.max",
        "memory.current",
        "memory.stat",
        "memory.events",
        "cpu.max",
        "cpu.stat",
        "pids.max",
        "pids.current",
    )
    told(a_host(tmp_path, V2 + mounts, b"0::/a\n" + member, a=dict.fromkeys(names, text)))
    containers.belongs(member, "ab" * 8)


@pytest.mark.parametrize(
    ("line", "container", "inside"),
    [
        (f"0::/system.slice/docker-{ID}.scope", ID[:12], True),
        (f"4:memory:/docker/{ID}", ID, True),
        (f"0::/machine.slice/libpod-{ID}.scope/container", ID[:20], True),
        (f"0::/kubepods.slice/pod1/cri-containerd-{ID}.scope", ID[:12], True),
        (f"0::/../{ID}", ID[:12], True),
        (f"0::/docker/{ID}", ID[:11], False),
        (f"0::/docker/{ID}", ID[1:13], False),
        ("0::/system.slice/shop.service", "shop.service", True),
        ("1:name=systemd:/lxc/shop:1", "shop:1", True),
        ("0::/system.slice/shop.service", "shop", False),
        ("0::/", "", False),
    ],
)  # fmt: skip
def test_belonging(line: str, container: str, inside: bool) -> None:
    """Ids by their beginning (12 digits, as engines show them) under every engine's prefix; groups by their name."""
    assert containers.belongs(f"{line}\n".encode(), container) is (inside or not container)


@contextmanager
def an_engine(place: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A socket on which every question gets ``answer``; the questions."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen()
    asked: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                asked.append(connection.recv(4096))
                connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def response(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


RUNNING = json.dumps({"Id": ID, "State": {"Running": True, "Pid": 50}}).encode()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response(200, RUNNING.replace(b"true", b"false")), "is not running"),
        (response(404, b"{}"), "knows no container 'my shop'"),
        (response(200, b"{"), "is no container engine"),
        (response(200, b"[]"), "is no container engine"),
        (response(200, b'{"State": {"Running": 1}, "Id": "../../etc"}'), "is not running"),
        (b"garbage\r\n\r\n", "does not answer"),
        (b"", "does not answer"),
        (response(200, RUNNING), ""),
    ],
)
def test_asking_an_engine(tmp_path: Path, answer: bytes, reason: str) -> None:
    """A running container gives its id; anything else, hostile answers too, a reason."""
    place = tmp_path / "engine.sock"
    with an_engine(place, answer) as asked:
        identity, said = containers.ask("my shop", (str(place),))
    assert asked[0].startswith(b"GET /containers/my%20shop/json HTTP/1.1\r\n")
    assert (identity == ID) is (reason == "")
    assert reason in said


def test_by_name_through_the_engine_and_what_to_do_without_one(tmp_path: Path) -> None:
    """The engine's id leads to the processes; no engine, or processes out of sight, is said with what to do."""
    proc = tmp_path / "proc"
    for pid, parent, group in ((1, 0, "/"), (49, 1, "/"), (50, 49, f"/docker/{ID}"), (51, 50, f"/docker/{ID}")):
        (proc / str(pid)).mkdir(parents=True)
        (proc / str(pid) / "stat").write_text(f"{pid} (x) S {parent} 1 0 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 {pid} 0 0")
        (proc / str(pid) / "cgroup").write_text(f"0::{group}\n")
    service = Service("shop", "http://x", "http://x", ProcessFinder.CONTAINER, "shop")
    table, place = ProcTable(str(proc)), tmp_path / "engine.sock"
    environ = {"DOCKER_HOST": f"unix://{place}"}
    if not any(Path(path).exists() for path in containers.SOCKETS):
        assert "mount its socket, or give the container's id" in find(service, table, environ).reason
    with an_engine(place, response(200, RUNNING)):
        assert [root.pid for root in find(service, table, environ).roots] == [50]
        for pid in (50, 51):
            (proc / str(pid) / "cgroup").write_text("0::/\n")
        assert "`pid: host` is missing" in find(service, table, environ).reason


def until(fact: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A Docker engine of its own with an image made of busybox; runs a ``docker`` command, gives its output."""
    environ = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/engine.sock", "DOCKER_CONFIG": str(tmp_path / "cfg")}
    command = ["unshare", "-m", "--propagation", "shared", "dockerd", "--data-root", f"{tmp_path}/data", "--exec-root",
               f"{tmp_path}/exec", "-H", environ["DOCKER_HOST"], "-p", f"{tmp_path}/pid", "--bridge", "none",
               "--log-level", "error"]  # fmt: skip

    def docker(*arguments: str) -> str:
        done = subprocess.run(["docker", *arguments], env=environ, capture_output=True, text=True, timeout=60)
        return done.stdout.strip() if done.returncode == 0 else f"failed: {done.returncode} {done.stderr}"

    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        until(lambda: not docker("version").startswith("failed"))
        (tmp_path / "image" / "bin").mkdir(parents=True)
        shutil.copy("/bin/busybox", tmp_path / "image" / "bin" / "busybox")
        subprocess.run(["tar", "-C", tmp_path / "image", "-cf", tmp_path / "image.tar", "."], check=True)
        assert "sha256" in docker("import", str(tmp_path / "image.tar"), "busy:1")
        yield docker
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(tmp_path / "data", ignore_errors=True)


@pytest.mark.needs("docker-engine")
def test_a_real_container(engine: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and by id; limits as given; a kill for want of memory and throttling are counted; found again after
    ``docker restart``."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    monkeypatch.delenv(ROOT_VARIABLE, raising=False)
    identity = engine("run", "-d", "--name", "shop", "--network", "none", "--memory", "64m", "--memory-swap", "64m",
                      "--cpus", "0.5", "--pids-limit", "40", "busy:1", "/bin/busybox", "sh", "-c",
                      "while :; do :; done")  # fmt: skip
    try:
        assert len(identity) == 64, identity
        by_name, by_id = (
            ServerProcesses(Service("shop", "", "", ProcessFinder.CONTAINER, what), retry=0)
            for what in ("shop", identity[:12])
        )

        def now(processes: ServerProcesses) -> dict[str, float]:
            return {family.metric.name: family.samples[0].value for family in processes.collect()}

        assert now(by_id)["process_count"] == now(by_name)["process_count"] == 1, by_name.problem
        engine("exec", "shop", "/bin/busybox", "tail", "/dev/zero")  # until the kernel ends it
        until(lambda: now(by_name)["container_memory_oom_kills_total"] == 1)
        until(lambda: now(by_name)["container_cpu_throttled_seconds_total"] > 0)
        found = now(by_name)
        assert found["container_memory_limit_bytes"] == 64 * 1024**2
        assert 0 < found["container_memory_working_set_bytes"] <= found["container_memory_usage_bytes"] < 64 * 1024**2
        assert found["container_cpu_limit"] == 0.5
        assert found["container_thread_limit"] == 40
        engine("restart", "-t", "0", "shop")
        until(lambda: now(by_name)["process_count"] == 1 == now(by_id)["process_count"])
        assert now(by_name)["process_restarts_total"] == 1
    finally:
        engine("rm", "-f", "shop")
