"""Where the endpoint lives: pinned once, never followed to another place.

The pin is an annotation, which whoever may edit the Endpoint can write. It is believed only as far as the immutable
spec, the account of the credentials and the ARN that SageMaker once answered agree with it."""

from sluice.api.reasons import Reason
from sluice.core.endpoint.draft import Draft
from sluice.core.finding import Finding
from sluice.core.identity import Place
from sluice.core.resolve import pinned_place


def moved(d: Draft) -> Finding | None:
    """What does not agree with the pin."""
    finding = d.given.resolution.finding
    if finding is not None and finding.reason is Reason.PLACEMENT_CHANGED:
        return finding
    place = pinned_place(d.given.endpoint)
    account = d.observation.account_id
    if place is not None and account is not None and place.account_id != account:
        return Finding(
            Reason.PLACEMENT_CHANGED,
            f"The endpoint lives in account {place.account_id}, but the credentials are of account {account}; give "
            "back the role or identity of the first.",
        )
    target = d.given.resolution.target
    if place is None and target is not None and account is not None:
        place = Place(account, target.credentials.region, target.endpoint_name)  # what a new pin would say
    arn = d.status.endpoint_arn
    parts = arn.split(":", 5) if arn else []
    if place is None or len(parts) != 6:
        return None
    found = (parts[4], parts[3], parts[5].lower())
    if found != (place.account_id, place.region, f"endpoint/{place.endpoint_name.lower()}"):
        return Finding(
            Reason.PLACEMENT_CHANGED,
            f"This Endpoint's is {arn}, but annotation sluice.dev/external, the spec and the credentials lead to "
            f"endpoint {place.endpoint_name} in {place.region}, account {place.account_id}; give back what led to the "
            "first.",
        )
    return None
