"""Every CEL rule of the three kinds with manifests that keep it and manifests that break it.

A rule is known by its kind, its place in the schema and its fixed message. Rules of a type that stands in several
places (containers, variants) are listed for each place.
"""

from collections.abc import Callable, Iterator

from sluice.api.names import OWNER_TAG

from .manifests import Manifest, config, endpoint, model
from .rulecases import Broken, RuleCases
from .rules_endpoint import endpoint_rules
from .rules_endpointconfig import endpointconfig_rules
from .rules_model import model_rules


def _every_kind() -> Iterator[RuleCases]:
    builders: dict[str, Callable[..., Manifest]] = {"Model": model, "EndpointConfig": config, "Endpoint": endpoint}
    for kind, build in builders.items():
        yield RuleCases(
            kind,
            "",
            "metadata.name is also the name in SageMaker",
            (build(name="a" * 63), build(name="a-1")),
            (
                Broken(build(name="a" * 64), "<nil>", "with 64 characters, allowed are at most 63 characters"),
                Broken(build(name="churn.v2"), "<nil>", 'metadata.name: found "churn.v2"'),
            ),
        )
        yield RuleCases(
            kind,
            "spec.tags",
            "tag keys that begin with 'sluice.dev/' or 'aws:' are reserved",
            (build(tags=[{"key": "sluice.dev", "value": "x"}, {"key": "awsome", "value": ""}]), build(tags=[])),
            tuple(
                Broken(
                    build(tags=[{"key": "team", "value": "x"}, {"key": key, "value": "x"}]),
                    "spec.tags",
                    f'tags: found the reserved key "{key}"',
                )
                for key in (OWNER_TAG, "aws:cloudformation:stack", "AWS:x")
            ),
        )


RULES: tuple[RuleCases, ...] = (*_every_kind(), *model_rules(), *endpointconfig_rules(), *endpoint_rules())
