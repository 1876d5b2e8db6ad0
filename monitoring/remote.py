"""Asking a monitor that runs, or any Prometheus, over its HTTP API: for the commands ``query`` and ``export``."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final

import httpx

from anvil_monitor.targets import Configuration

TIMEOUT: Final = 60.0


class RemoteError(Exception):
    """Why there is no answer. ``wrong`` says that the question was (HTTP 400 or 422)."""

    def __init__(self, reason: str, *, wrong: bool = False) -> None:
        super().__init__(reason)
        self.wrong = wrong


class UnreachableError(RemoteError):
    """Nobody is there: another question would fare no better."""


class Remote:
    """The API below ``url``; a context manager."""

    def __init__(self, url: str, token: str | None = None, timeout: float = TIMEOUT) -> None:
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, trust_env=False, timeout=timeout)
        except (httpx.InvalidURL, ValueError) as error:
            raise RemoteError(f"{url!r} is no URL: {error}", wrong=True) from None

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def ask(self, path: str, **parameters: str) -> dict[str, Any]:
        """The whole envelope of a success. Raises :class:`RemoteError`."""
        try:
            answer = self._http.post(f"/api/v1/{path}", data=parameters)
            if answer.status_code == 405:
                answer = self._http.get(f"/api/v1/{path}", params=parameters)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            kind = RemoteError if isinstance(error, httpx.ReadTimeout) else UnreachableError
            raise kind(f"{self.url} does not answer: {str(error) or type(error).__name__}") from None
        if answer.status_code == 401:
            raise RemoteError(f"{self.url} asks for its token: set [monitor] token, or give --token env:NAME")
        try:
            body = answer.json()
            if body["status"] == "success":
                return dict(body)
            raise RemoteError(str(body["error"]), wrong=answer.status_code in (400, 422))
        except (ValueError, KeyError, TypeError):
            raise RemoteError(f"{self.url} answers HTTP {answer.status_code}, but not as a Prometheus does") from None

    def data(self, path: str, **parameters: str) -> Any:
        return self.ask(path, **parameters)["data"]


def own_token(configuration: Configuration, environ: dict[str, str]) -> str | None:
    """The token of the configured monitor, where it can be read."""
    secret = configuration.monitor.token
    if secret is None:
        return None
    try:
        return secret.reveal(environ)
    except LookupError as error:
        raise RemoteError(f"[monitor] token: {error}", wrong=True) from None
