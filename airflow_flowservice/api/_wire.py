"""Connections that note whether a request went out, which `requests` does not tell.

A failed TLS handshake and an answer that was cut off raise the same classes; after a POST they mean
opposite things.
"""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class _Note(threading.local):
    sent: bool | None = None


_note = _Note()


def forget() -> None:
    """Before a request of this thread: nothing is known yet."""
    _note.sent = None


def was_sent() -> bool | None:
    """Whether this thread's last attempt got as far as sending; None when nobody noted it."""
    return _note.sent


class NotingConnection(HTTPConnection):
    """Notes for its thread whether a request got as far as being sent."""

    def connect(self) -> None:
        _note.sent = False
        super().connect()

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.is_closed:
            self.connect()
        _note.sent = True
        super().request(*args, **kwargs)


class NotingTLSConnection(NotingConnection, HTTPSConnection):
    """The same over TLS."""


class NotingPool(HTTPConnectionPool):
    """A pool of noting connections."""

    ConnectionCls = NotingConnection


class NotingTLSPool(HTTPSConnectionPool):
    """A pool of noting connections over TLS."""

    ConnectionCls = NotingTLSConnection


class NotingAdapter(HTTPAdapter):
    """An adapter whose connections note what they sent; those through SOCKS proxies do not."""

    pools: ClassVar[dict[str, Any]] = {"http": NotingPool, "https": NotingTLSPool}

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self.pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **kwargs)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = self.pools
        return manager
