"""Which API server, and as whom: one answer for the adapter and for kopf.

A kubeconfig that is named explicitly (KUBECONFIG) wins, then the pod's ServiceAccount, then the kubeconfig at its
default place. Nothing is kept in the client library's global default."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, load_incluster_config, load_kube_config


class NoKubernetesError(Exception):
    """There is no usable kubeconfig and no ServiceAccount."""


@dataclass(frozen=True, slots=True)
class Login:
    """The parts of a client configuration that kopf needs."""

    server: str
    ca_path: str | None
    insecure: bool
    certificate_path: str | None
    private_key_path: str | None
    scheme: str | None
    token: str | None


async def load_configuration(environ: Mapping[str, str] = os.environ) -> Configuration:
    """The client's configuration. Raises NoKubernetesError."""
    configuration = Configuration()
    try:
        if environ.get("KUBECONFIG") or "KUBERNETES_SERVICE_HOST" not in environ:
            await load_kube_config(  # type: ignore[no-untyped-call] # the library is typed in parts
                config_file=environ.get("KUBECONFIG"),
                client_configuration=configuration,
                persist_config=False,
            )
        else:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # as above
    except (ConfigException, OSError) as error:
        raise NoKubernetesError(
            f"no way to reach Kubernetes: {error}; set KUBECONFIG to a kubeconfig file, or run in a pod with a "
            "ServiceAccount token"
        ) from error
    return configuration


async def login(configuration: Configuration) -> Login:
    """The configuration's credentials as they are now; a token that rotates is read again."""
    header = str(await configuration.get_api_key_with_prefix("BearerToken", alias="authorization") or "")
    scheme, _, token = header.rpartition(" ")
    return Login(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=not configuration.verify_ssl,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        scheme=scheme.capitalize() or None,
        token=token or None,
    )
