"""Requests that are asked about once more when they have their connection: to make one may take as long as another
process needs to take over, and what was decided before it is void then."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import aiohttp
from aiohttp.client import ClientRequest
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from kubernetes.aio.client.rest import RESTClientObject

Check = Callable[[], None]
"""Raises what keeps a request from going out."""

_check: ContextVar[Check | None] = ContextVar("check", default=None)


@contextmanager
def checked(check: Check) -> Iterator[None]:
    """A request of this task goes out only if `check` raises nothing once there is a connection for it."""
    token = _check.set(check)
    try:
        yield
    finally:
        _check.reset(token)


class Rest(RESTClientObject):
    """The client library's, over connections that are asked about."""

    def _create_connector(self) -> aiohttp.TCPConnector:
        return _Connector(limit=self.maxsize, ssl=self.ssl_context)


class _Connector(aiohttp.TCPConnector):
    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout) -> Connection:  # noqa: ASYNC109 - aiohttp's own
        """One from the pool or a new one; after it nothing is waited for until the request is sent."""
        connection = await super().connect(req, traces, timeout)
        check = _check.get()
        if check is not None:
            try:
                check()
            except BaseException:
                connection.release()
                raise
        return connection
