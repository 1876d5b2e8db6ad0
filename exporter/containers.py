"""Processes of a container, by its id or name.

The kernel writes the container's id into the path of each of its control groups, whatever the engine: an id, or the
beginning of one, needs nobody's help. A name is known to the engine alone: it is asked over its socket.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
from collections.abc import Mapping
from urllib.parse import quote

# Docker and podman answer the same question in the same words.
SOCKETS = ("/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock")
_ID = re.compile(r"[0-9a-f]{12,64}")
_PART = re.compile(rb"(?:[a-z0-9]+(?:-[a-z0-9]+)*-)?([0-9a-f]{64})(?:\.scope)?")
_MOST = 4_000_000  # bytes of an answer


def belongs(cgroups: bytes, container: str) -> bool:
    """Whether a process with this ``/proc/PID/cgroup`` is in ``container``: an id (12 digits or more) or a group's own
    name (``shop.service`` of systemd, the name of an LXC or containerd container)."""
    wanted = container.encode()
    by_id = bool(_ID.fullmatch(container))
    for line in cgroups.splitlines():
        for part in line.split(b":", 2)[-1].split(b"/"):
            if part == wanted:
                return True
            match = _PART.fullmatch(part) if by_id else None
            if match and match.group(1).startswith(wanted):
                return True
    return False


def sockets(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Where an engine may listen."""
    named = environ.get("DOCKER_HOST", "")
    own = f"{environ['XDG_RUNTIME_DIR']}/podman/podman.sock" if environ.get("XDG_RUNTIME_DIR") else ""
    return tuple(path for path in (named.removeprefix("unix://") if named.startswith("unix://") else "", *SOCKETS, own)
                 if path)  # fmt: skip


def ask(name: str, places: tuple[str, ...], timeout: float = 0.5) -> tuple[str, str]:
    """The id of the running container ``name``, or an empty one and the reason."""
    reason = ""
    for place in places:
        if not os.path.exists(place):  # noqa: PTH110
            continue
        try:
            status, body = _get(place, f"/containers/{quote(name, safe='')}/json", timeout)
            if status == 404:
                reason = f"the engine at {place} knows no container {name!r}"
                continue
            found = json.loads(body)
            if found["State"]["Running"]:
                identity = str(found["Id"])
                if _ID.fullmatch(identity):
                    return identity, ""
            reason = f"container {name!r} is not running"
        except PermissionError:
            reason = f"{place} may not be read: run the exporter as a user that may, or give the container's id"
        except (OSError, http.client.HTTPException):
            reason = f"the engine at {place} does not answer"
        except (ValueError, LookupError, TypeError):
            reason = f"what answers at {place} is no container engine"
    return "", reason or "no container engine is reachable here: mount its socket, or give the container's id"


def _get(place: str, path: str, timeout: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("localhost", timeout=timeout)
    connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.sock.settimeout(timeout)
        connection.sock.connect(place)
        connection.request("GET", path, headers={"Connection": "close"})
        response = connection.getresponse()
        return response.status, response.read(_MOST)
    finally:
        connection.close()
