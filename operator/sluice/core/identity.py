"""Who an Endpoint is, outside its Kubernetes object: its owner string, and the place its AWS objects live in.

Ownership is installation/namespace/name; a UID is never part of it, so a cluster rebuilt from Git finds its own."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Key:
    """An object in the queue: kind, namespace, name."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner of an Endpoint's AWS objects."""

    installation_id: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """The value of the ownership tag, e.g. `prod-1/team-a/churn`."""
        return f"{self.installation_id}/{self.namespace}/{self.name}"

    @property
    def external_id(self) -> str:
        """The ExternalId that AssumeRole sends: installation/namespace, so that a role can trust one namespace."""
        return f"{self.installation_id}/{self.namespace}"


@dataclass(frozen=True, slots=True)
class Credentials:
    """Where calls go and as whom: a region, and a role to assume (None: the operator's own identity)."""

    region: str
    role_arn: str | None = None
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The pinned place of an Endpoint: it never changes once written (annotation sluice.dev/external)."""

    account_id: str
    region: str
    endpoint_name: str

    @property
    def claim(self) -> tuple[str, str, str]:
        """What two Endpoints may not share: SageMaker's endpoint names are unique without regard to case."""
        return (self.account_id, self.region, self.endpoint_name.lower())


@dataclass(frozen=True, slots=True)
class Target:
    """One Endpoint as the backend needs to know it."""

    owner: Owner
    credentials: Credentials
    endpoint_name: str
