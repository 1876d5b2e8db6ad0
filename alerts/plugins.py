"""Loads of Apprise's plugins only the one that a URL needs: all of them take 0.2 s and 18 MB, one a few milliseconds.

Apprise loads every plugin that it finds in a folder. It is given a folder with the one file name that counts, and the
package that the plugin is in; where that does not give what the URL needs, all of them are loaded, as by itself.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, Final

PACKAGE: Final = "apprise.plugins"
SCHEME: Final = re.compile(r"([a-z0-9]{1,20})://", re.IGNORECASE)


def load(url: str) -> None:
    """Load the plugin for ``url``, unless it is there; all of them, unless it is known which one that is."""
    from apprise.manager_plugins import NotificationManager

    manager: Any = NotificationManager()  # type: ignore[no-untyped-call]
    match = SCHEME.match(url)
    scheme = match[1].lower() if match else ""
    # Asked whether it has a plugin, a manager without any loads all.
    if manager and scheme in manager:
        return
    for name in named(scheme):
        try:
            with tempfile.TemporaryDirectory(prefix="anvil-monitor-") as folder:
                Path(folder, f"{name}.py").touch()
                manager.load_modules(path=folder, name=PACKAGE)
        except OSError:  # no disk for a file's name
            break
        if manager and scheme in manager:
            return
    manager.load_modules()


def named(scheme: str) -> list[str]:
    """The plugins that say ``scheme`` is theirs, by the names of their modules."""
    from apprise import plugins

    # "protocol" and, in the same assignment, the scheme: ``secure_protocol = ("bsky", "bluesky")``.
    claim = re.compile(rf"^ +(?:secure_)?protocol = \(?[\s\w\",]*\"{re.escape(scheme)}\"".encode(), re.MULTILINE)
    found: list[str] = []
    for file in sorted(Path(plugins.__file__).parent.glob("**/*.py")) if scheme else ():
        text = file.read_bytes()
        if f'"{scheme}"'.encode() in text and claim.search(text):
            module = file.relative_to(Path(plugins.__file__).parent).parts[0]
            found.append(module.removesuffix(".py"))
    return list(dict.fromkeys(found))
