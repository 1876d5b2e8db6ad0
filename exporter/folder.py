"""The folder in which the workers of one service keep their pages."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from hashlib import blake2s
from pathlib import Path
from typing import Final

ENVIRONMENT_VARIABLE: Final = "ANVIL_MONITOR_PAGES"
OURS: Final = "anvil-monitor-"
SALT: Final = "salt"
SALT_SIZE: Final = 32


def pages_folder(service: str, directory: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Path:
    """Where the pages of ``service`` are: ``directory``, else below ``ANVIL_MONITOR_PAGES``, else below the user's own.

    Workers of one server find each other because they share service name and working directory. For the same reason two
    servers of one service that run in one directory, as while the new one replaces the old, are one: each shows the sum
    of both. Where both are to be scraped for good, give each a ``directory``.
    """
    if directory:
        return Path(directory).absolute()
    if named := environ.get(ENVIRONMENT_VARIABLE):
        return Path(named).absolute() / service  # a variable may be everybody's
    base = Path(environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    where = blake2s(os.fsencode(Path.cwd()), digest_size=4).hexdigest()
    return base / f"{OURS}{os.geteuid()}" / f"{service}-{where}"


def settled(folder: Path) -> Path:
    """``folder`` of :func:`pages_folder` for the present user: a server's worker may have become another one since."""
    owner = folder.parent.name.removeprefix(OURS)
    if owner == folder.parent.name or not owner.isdigit():
        return folder
    return folder.parent.with_name(f"{OURS}{os.geteuid()}") / folder.name


def prepare(folder: Path) -> None:
    """Make ``folder``, for this user only. Raises ``OSError`` when it cannot be made or may be somebody else's.

    Below a temporary folder that all users share, our name could have been taken by another user: then it is refused.
    So is one that the user has named and that others may write to: pages in it could be anybody's.
    """
    if folder.parent.name == f"{OURS}{os.geteuid()}":
        with contextlib.suppress(FileExistsError):
            folder.parent.mkdir(mode=0o700)
        _check(folder.parent, folder.parent.lstat())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(open_folder(folder))


def open_folder(folder: Path) -> int:
    """A descriptor of ``folder``. Raises ``OSError``, of it ``PermissionError`` for one that is not private."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _check(folder, os.fstat(opened))
    except OSError:
        os.close(opened)
        raise
    return opened


def _check(folder: Path, found: os.stat_result) -> None:
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(errno.EPERM, f"{folder} belongs to another user, or others may write to it")


def salt(folder: Path) -> bytes:
    """The secret of this folder that client addresses are hashed with: the same for all its workers.

    Raises ``OSError`` when it can neither be read nor made.
    """
    path = folder / SALT
    with contextlib.suppress(FileNotFoundError):
        return _read_salt(path)
    new = folder / f".new-{secrets.token_hex(6)}"
    new.touch(mode=0o600)
    try:
        new.write_bytes(secrets.token_bytes(SALT_SIZE))
        # A link and not a rename: of several workers that start at once, the first one's salt is everyone's.
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(new)
    finally:
        new.unlink()
    return _read_salt(path)


def _read_salt(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.read(fd, SALT_SIZE)
    finally:
        os.close(fd)
    if len(found) < SALT_SIZE:
        raise OSError(errno.EINVAL, f"{path} is no salt")
    return found
