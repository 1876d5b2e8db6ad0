"""Host metrics and the exporter's own ``/metrics``."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from anvil_monitor.exporter import clock, host, names, portable
from anvil_monitor.exporter.exposition import Family, Sample, number_text, render
from anvil_monitor.exporter.names import Metric
from anvil_monitor.exporter.server import create_app
from anvil_monitor.targets.load import parse


def told(families: list[Family]) -> dict[str, dict[str, float]]:
    """Values by metric and by the label values, joined with spaces."""
    return {
        family.metric.name: {" ".join(value for _, value in each.labels): each.value for each in family.samples}
        for family in families
    }


def test_the_host_is_told_under_opentelemetry_names() -> None:
    """CPU, memory, swap, load, disks, file systems and network of this very machine, as psutil sees them."""
    families = host.collect()
    found, other = told(families), told(portable.collect())
    assert found["system_memory_limit_bytes"][""] == psutil.virtual_memory().total
    assert sum(found["system_memory_usage_bytes"].values()) == found["system_memory_limit_bytes"][""]
    assert set(found["system_cpu_time_seconds_total"]) > {"user", "system", "idle", "iowait", "steal"}
    assert {name for name in other if name not in found} <= {
        "system_disk_operations_total",
        "system_disk_io_bytes_total",
    }
    for name in ("system_cpu_time_seconds_total", "system_network_io_bytes_total", "system_filesystem_usage_bytes"):
        for labels in found[name].keys() & other[name].keys():
            assert found[name][labels] == pytest.approx(other[name][labels], rel=0.1, abs=1e6), (name, labels)
    assert found["system_uptime_seconds"][""] == pytest.approx(time.time() - psutil.boot_time(), abs=5)
    assert all(family.metric is names.BY_NAME[family.metric.name] for family in families)
    for family in families:
        for sample in family.samples:
            assert sorted(name for name, _ in sample.labels) == sorted(family.metric.labels), family.metric.name


def test_what_psutil_does_not_have() -> None:
    """Pressure, inodes, paging, kills, open files, task counts and the clock come out of the kernel as it says them."""
    found = told(host.collect())
    pressure_says = Path("/proc/pressure/io").read_text() if Path("/proc/pressure/io").exists() else ""
    if pressure_says:
        assert found["system_pressure_stall_seconds_total"]["io some"] == pytest.approx(
            int(pressure_says.split("total=")[1].split()[0]) / 1e6, rel=0.1, abs=5
        )
    disk = os.statvfs("/")
    roots = {labels: value for labels, value in found["system_filesystem_inodes_usage"].items() if " / " in labels}
    for labels, value in roots.items():
        if labels.endswith("free"):
            assert value == pytest.approx(disk.f_ffree, rel=0.05)
    assert found["system_open_file_descriptor_limit"][""] > found["system_open_file_descriptor_count"][""] > 0
    assert found["system_process_count"]["running"] >= 1
    assert found["system_thread_count"][""] > 1
    assert found["system_process_created_total"][""] > 1


def test_the_clock_is_asked_not_set() -> None:
    """The kernel's own word on its clock: no right is needed, the error has a bound."""
    found = clock.read()
    if found is not None:  # a container may forbid the question
        assert found.error >= 0
        assert abs(found.offset) < 10


def a_root(folder: Path, **files: bytes) -> Path:
    """A host's root of which only ``files`` are there; ``__`` in a name is a slash."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    return folder


DISKS = (
    b"   8 0 sda 100 0 2000 5000 50 0 4000 7000 0 1500 12000 0 0 0 0\n"
    b"   8 1 sda1 90 0 1900 4000 40 0 3000 6000 0 1400 10000 0 0 0 0\n"
    b"   7 0 loop0 5 0 5 5 5 0 5 5 0 5 5 0 0 0 0\n"
)
CARDS = (
    b"Inter-|   Receive                                                |  Transmit\n"
    b" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls ...\n"
    b"  eth0:1000 10 1 2 0 0 0 0 3000 30 3 4 0 0 0 0\n"
    b"veth12ab: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n"
)


def test_a_host_seen_from_a_container(tmp_path: Path) -> None:
    """With the host's ``/`` mounted elsewhere its files are read there: process 1's network and mounts, whole disks."""
    (tmp_path / "var" / "my data").mkdir(parents=True)
    root = a_root(
        tmp_path,
        proc__1__net__dev=CARDS,
        proc__self__net__dev=CARDS.replace(b"eth0", b"lo"),
        proc__diskstats=DISKS,
        proc__filesystems=b"nodev\tproc\n\text4\n\tsquashfs\nnodev\toverlay\n",
        proc__1__mounts=b"proc /proc proc rw 0 0\n/dev/sdb1 /var/my\\040data/deeper ext4 rw 0 0\n"
        b"/dev/sdb1 /var/my\\040data ext4 rw 0 0\n/dev/sdc /gone ext4 rw 0 0\nov / overlay rw 0 0\n",
        sys__block__sda__size=b"1",
    )
    collect = host.at({host.ROOT_VARIABLE: str(root)})
    found = told(collect())
    assert found["system_disk_io_bytes_total"] == {"read sda": 2000 * 512, "write sda": 4000 * 512}
    assert found["system_disk_operation_time_seconds_total"] == {"read sda": 5, "write sda": 7}
    assert found["system_disk_io_time_seconds_total"] == {"sda": 1.5}
    assert found["system_network_packet_count_total"] == {"eth0 receive": 10, "eth0 transmit": 30}
    assert found["system_network_packet_dropped_total"] == {"eth0 receive": 2, "eth0 transmit": 4}
    assert set(found["system_filesystem_usage_bytes"]) == {
        f"/dev/sdb1 /var/my data {state}" for state in ("used", "free", "reserved")
    }


garbage = st.binary(max_size=200) | st.lists(
    st.sampled_from([b"cpu", b" ", b"\n", b"-1", b"9" * 400, b"0", b"MemTotal:", b"kB", b"\\777", b"ext4", b"/dev/a",
                     b"some", b"total=", b"eth0:", b"sda", b"\xff", b"processes", b"/", b"\0"]), max_size=60
).map(b"".join)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
@given(text=garbage)
def test_garbage_in_the_kernels_files_is_left_out(tmp_path: Path, text: bytes) -> None:
    """Whatever stands in ``/proc``: a collection without error, and a valid text."""
    files = ("stat", "meminfo", "vmstat", "loadavg", "diskstats", "filesystems", "self/net/dev", "self/mounts",
             "1/mounts", "sys/fs/file-nr", "pressure/io", "pressure/cpu")  # fmt: skip
    root = a_root(tmp_path, **{f"proc/{name}": text for name in files})
    assert render(host.Host(str(root)).collect()).endswith("\n")


def test_devices_are_bounded(tmp_path: Path) -> None:
    """A thousand disks, cards and mounts give 64 of each, the same ones at every collection."""
    disks = b"".join(DISKS.splitlines(keepends=True)[0].replace(b"sda", b"sd%d" % n) for n in range(1000))
    cards = b"".join(CARDS.splitlines(keepends=True)[2].replace(b"eth0", b"eth%d" % n) for n in range(1000))
    for number in range(1000):
        (tmp_path / f"m{number}").mkdir()
    root = a_root(
        tmp_path,
        proc__diskstats=disks,
        proc__1__net__dev=b"\n\n" + cards,
        proc__filesystems=b"\text4\n",
        proc__1__mounts=b"".join(b"/dev/x%d /m%d ext4 rw 0 0\n" % (n, n) for n in range(1000)),
    )
    collect = host.Host(str(root)).collect
    first = told(collect())
    for name in ("system_disk_io_time_seconds_total", "system_network_io_bytes_total", "system_filesystem_usage_bytes"):
        assert len({labels.split()[0].partition(" ")[0] for labels in first[name]}) <= 64
        assert first[name].keys() == told(collect())[name].keys()
    assert len(first["system_disk_io_time_seconds_total"]) == 64


def test_the_exporter_serves_two_services_in_one_family() -> None:
    """Two services that are down: one family with a sample each, in valid text."""
    app = create_app(parse('[[service]]\nname = "a"\nport = 1\n[[service]]\nname = "b"\nport = 2\n'))
    with TestClient(app) as client:
        text = client.get("/metrics").text
        assert client.get("/-/healthy").text == "ok\n"
    assert text.count("# TYPE process_count gauge") == 1
    assert 'process_count{service="a"} 0\nprocess_count{service="b"} 0\n' in text


def test_text_format_escapes_and_numbers() -> None:
    """Quotes, backslashes and line ends in a label are escaped; numbers are as Prometheus writes them."""
    family = Family(Metric("m", "gauge", "Help."), [Sample("", (("x", 'a"b\\c\nd'),), 0.2)])
    assert render([family]) == '# HELP m Help.\n# TYPE m gauge\nm{x="a\\"b\\\\c\\nd"} 0.2\n'
    assert [number_text(value) for value in (2.0, 0.05, math.inf, -math.inf, 1e20)] == [
        "2", "0.05", "+Inf", "-Inf", "1e+20",
    ]  # fmt: skip
    assert number_text(math.nan) == "NaN"
