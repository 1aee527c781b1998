"""Owns the AWS clients: one set per (region, role, ExternalId), built lazily under a lock and shared by all threads.

They are botocore's, as boto3 hands them out; a boto3.Session would add to the shared loader's search path for ever.

Everything here runs in worker threads: finding credentials may ask the instance metadata service, read token files or
call STS. Endpoints of our own (a simulator, a private link) come from botocore's own AWS_ENDPOINT_URL variables."""

import functools
import logging
import re
import threading
from collections.abc import Callable
from typing import Any, Final

from botocore.config import Config
from botocore.credentials import CredentialProvider, CredentialResolver, DeferredRefreshableCredentials
from botocore.credentials import Credentials as BotoCredentials
from botocore.loaders import Loader, create_loader
from botocore.session import Session

from sluice.core.identity import Credentials
from sluice.ports.aws import Service
from sluice.sagemaker.errors import Call, no_credentials

# botocore logs each failed AssumeRole with a traceback; here it is told once, as a classified problem.
logging.getLogger("botocore.credentials").setLevel(logging.ERROR)

_NOT_IN_SESSION_NAMES: Final = re.compile(r"[^\w+=,.@-]")


class _AssumeRole(CredentialProvider):
    """A provider that assumes a role, and assumes it again before the credentials expire."""

    METHOD = "sluice-assume-role"

    def __init__(self, refresh: Callable[[], dict[str, str]]) -> None:
        super().__init__()
        self._refresh = refresh

    def load(self) -> BotoCredentials:
        return DeferredRefreshableCredentials(refresh_using=self._refresh, method=self.METHOD)


class Sessions:
    """Clients by credentials and service. Thread-safe."""

    def __init__(self, config: Config, session_name: str) -> None:
        self._config = config
        self._session_name = _NOT_IN_SESSION_NAMES.sub("-", session_name)[:64]
        self._lock = threading.Lock()
        self._sets: dict[Credentials, _ClientSet] = {}

    def client(self, credentials: Credentials, service: Service) -> Any:
        """The client. Raises what botocore raises, or CallFailed when there are no credentials at all."""
        with self._lock:
            clients = self._sets.get(credentials)
            if clients is None:
                clients = self._sets[credentials] = _ClientSet()
        with clients.lock:
            if clients.session is None:
                clients.session = self._session(credentials)
            client = clients.by_service.get(service)
            if client is None:
                client = clients.by_service[service] = clients.session.create_client(
                    service, region_name=credentials.region, config=self._config
                )
            return client

    def drop(self, credentials: Credentials) -> None:
        """Forget the clients, so that the next call looks for credentials anew (a rotated Secret, a new identity)."""
        with self._lock:
            self._sets.pop(credentials, None)

    def _session(self, credentials: Credentials) -> Session:
        own = _plain_session()
        if own.get_credentials() is None:
            raise no_credentials(Call("sts", "GetCallerIdentity", Credentials(credentials.region)))
        if credentials.role_arn is None:
            return own
        sts: Any = own.create_client("sts", region_name=credentials.region, config=self._config)
        request = {"RoleArn": credentials.role_arn, "RoleSessionName": self._session_name}
        if credentials.external_id is not None:
            request["ExternalId"] = credentials.external_id

        def refresh() -> dict[str, str]:
            fresh = sts.assume_role(**request)["Credentials"]
            return {
                "access_key": fresh["AccessKeyId"],
                "secret_key": fresh["SecretAccessKey"],
                "token": fresh["SessionToken"],
                "expiry_time": fresh["Expiration"].isoformat(),
            }

        assumed = _plain_session()
        assumed.register_component("credential_provider", CredentialResolver([_AssumeRole(refresh)]))
        return assumed


def _plain_session() -> Session:
    session = Session()
    session.register_component("data_loader", _loader())
    return session


@functools.cache
def _loader() -> Loader:
    """The API models are tens of megabytes once parsed: all sessions share them."""
    return create_loader()


class _ClientSet:
    """The session and clients of one set of credentials; creating either is not thread-safe in botocore."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.session: Session | None = None
        self.by_service: dict[Service, Any] = {}
