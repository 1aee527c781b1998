"""The conformance table on a real AWS account, for a person who has one: `make conformance-aws ARGS='...'`.

The operator and an API server run here; endpoints run, and cost, in the account that the usual AWS credentials belong
to. Nothing starts before the most that it can cost is known to be within --cap-dollars; whatever was made is deleted at
the end, also after an interruption, and what could not be deleted is named."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from tests.conformance.drive import Images, Site, name_of, run
from tests.conformance.recorder import Recorder
from tests.conformance.scenario import Scenario, Seen
from tests.conformance.table import TABLE
from tests.operator.harness.kube import Kube, install_crds, until
from tests.operator.harness.nursery import Nursery
from tests.operator.harness.operator_process import Operator
from tests.operator.harness.world import ALLOW_ALL, FAST

from localcluster.controlplane import ControlPlane

ROOT = Path(__file__).parents[2]
WAITS = 30
"""Every wait of the table, two seconds mostly, takes so many times longer: alarms are read once a minute or so."""
HOURS = 1.5
"""How long the endpoint of one scenario may stand, at most."""
DELETION_HOURS = 0.5
"""So much of them is kept for its deletion: a scenario that takes longer than the rest is given up."""
SIDE_BY_SIDE = 4


ORDERED = tuple(one for one in TABLE if one.can_be_ordered)
"""What a person can have there."""


def dollars(scenarios: tuple[Scenario, ...], per_instance_hour: float) -> float:
    """The most that these can cost: old and new fleets at full size for as long as a scenario may take. An endpoint
    that AWS does not delete in its time is named, and stands until all is deleted at the end: that is not in here."""
    return sum(map(_instances, scenarios)) * HOURS * per_instance_hour


def _instances(scenario: Scenario) -> int:
    """At once, at most: before and after the change, each with what events add."""
    before, after = sum(scenario.counts.values()), sum(count for count, _ in scenario.becomes.values())
    return before + (after or before) + 2 * (1 + sum(event.do == "counts" for event in scenario.events))


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    """Run; 0: every scenario was as the table says."""
    given = _arguments(arguments)
    scenarios = tuple(one for one in ORDERED if not given.only or one.name in given.only)
    bound = dollars(scenarios, given.dollars_per_instance_hour)
    _say(f"{len(scenarios)} scenarios on {given.instance_type} in {given.region}: at most {bound:.2f} dollars")
    if bound > given.cap_dollars:
        _say(f"--cap-dollars is {given.cap_dollars:.2f}: nothing was started. Raise it, or choose by --only.")
        return 2
    prefix = f"sluice-{uuid.uuid4().hex[:8]}"
    try:
        with _site(given, prefix) as site, ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
            runs = [(scenario, pool.submit(_run, scenario, site)) for scenario in scenarios]
            try:
                return sum([_tell(scenario, ended.result) for scenario, ended in runs]) and 1
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                site.recorder.close()  # those under way end, and are deleted
                raise
    finally:
        _delete(boto3.Session(region_name=given.region), prefix)


def _run(scenario: Scenario, site: Site) -> Seen:
    """What was seen; its endpoint is gone then, and costs no more while others go on."""
    try:
        return run(scenario, site)
    finally:
        name = name_of(scenario, site)
        site.kube.delete("Endpoint", site.namespace, name)
        try:
            until(
                lambda: site.kube.get("Endpoint", site.namespace, name) is None or None,
                seconds=DELETION_HOURS * 3600,
                what=lambda: "it is still there",
                every=1,
            )
        except AssertionError as error:
            _say(f"NOT DELETED so far {name}: {error}")


def _tell(scenario: Scenario, result: Callable[[], Seen]) -> int:
    """One line of the outcome; 1: not as expected."""
    wanted = scenario.wanted("SageMaker")
    try:
        seen = result()
    except AssertionError as error:
        _say(f"FAILED {scenario.name}: {error}")
        return 1
    if seen == wanted:
        _say(f"same   {scenario.name}")
        return 0
    _say(f"DIFFERS {scenario.name}\n  expected {wanted}\n  seen     {seen}")
    return 1


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make conformance-aws", description=__doc__)
    parser.add_argument("--region", required=True)
    parser.add_argument("--role", required=True, help="ARN of the Models' execution role; it may read the alarms")
    for image in ("old", "new", "third"):
        parser.add_argument(f"--{image}-image", required=True, help="an ECR image that answers /ping; all three differ")
    parser.add_argument("--unhealthy-image", required=True, help="an ECR image that never answers /ping")
    parser.add_argument("--model-data-url", help="modelDataUrl of every Model, where the images need one")
    parser.add_argument("--instance-type", default="ml.t2.medium")
    parser.add_argument("--dollars-per-instance-hour", type=float, required=True, help="AWS' price of that type")
    parser.add_argument("--cap-dollars", type=float, required=True, help="the most that the run may cost")
    parser.add_argument("--only", nargs="*", choices=[one.name for one in ORDERED], help="these scenarios alone")
    return parser.parse_args(arguments)


@contextlib.contextmanager
def _site(given: argparse.Namespace, prefix: str) -> Iterator[Site]:
    """An API server and an operator here, AWS there. The namespace is the prefix of everything that is made."""
    cloudwatch: Any = boto3.client("cloudwatch", region_name=given.region)
    with tempfile.TemporaryDirectory() as kept, ControlPlane(Path(kept)) as control_plane:
        kube, nursery = Kube(control_plane.kubeconfig), Nursery([ROOT / "operator"])
        install_crds(kube, ROOT / "crds")
        kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": prefix}})
        data = {"policy.yaml": json.dumps(ALLOW_ALL)}
        metadata = {"name": "sluice-permissions"}
        kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, prefix)
        log = Path.cwd() / f"{prefix}.log"
        operator = Operator(nursery, kubeconfig=control_plane.kubeconfig, log=log, environment=_settings(given, prefix))
        recorder = Recorder(kube, prefix)
        operator.start()
        _say(f"the operator's log: {log}")

        def set_alarm(name: str, state: str) -> None:
            cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason="conformance")

        def make_alarm(name: str, state: str) -> None:
            cloudwatch.put_metric_alarm(
                AlarmName=name, Namespace="SluiceConformance", MetricName="Errors", Statistic="Sum", Period=3600,
                EvaluationPeriods=1, Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
                TreatMissingData="ignore",
            )  # fmt: skip
            set_alarm(name, state)

        try:
            yield Site(
                backend="SageMaker",
                kube=kube,
                namespace=prefix,
                recorder=recorder,
                images=Images(given.old_image, given.new_image, given.third_image, given.unhealthy_image),
                make_alarm=make_alarm,
                set_alarm=set_alarm,
                instance_type=given.instance_type,
                role=given.role,
                model={"modelDataUrl": given.model_data_url} if given.model_data_url else {},
                waits=WAITS,
                patience=(HOURS - DELETION_HOURS) * 3600,
                prefix=f"{prefix}-",
            )
        finally:
            recorder.close()
            operator.kill()
            nursery.close()
            kube.close()


def _settings(given: argparse.Namespace, prefix: str) -> dict[str, str]:
    """The operator's, with the credentials of whoever runs this."""
    hurried = {name: value for name, value in FAST.items() if "SAGEMAKER" not in name and "AWS" not in name}
    credentials = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return {
        **hurried,
        **credentials,
        "HOME": os.environ.get("HOME", ""),
        "SLUICE_CLOUDWATCH_SECONDS": "15",
        "SLUICE_INSTALLATION_ID": prefix,
        "SLUICE_OPERATOR_NAMESPACE": prefix,
        "SLUICE_WATCH_NAMESPACES": prefix,
        "AWS_REGION": given.region,
    }


def _delete(session: Any, prefix: str) -> None:
    """Everything whose name begins with the prefix; what stays is named."""
    sagemaker, cloudwatch = session.client("sagemaker"), session.client("cloudwatch")
    kinds = (
        ("list_endpoints", "Endpoints", "EndpointName", sagemaker.delete_endpoint),
        ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", sagemaker.delete_endpoint_config),
        ("list_models", "Models", "ModelName", sagemaker.delete_model),
    )
    for operation, group, key, delete in kinds:
        for page in sagemaker.get_paginator(operation).paginate(NameContains=prefix):
            for item in page[group]:
                try:
                    delete(**{key: item[key]})
                except sagemaker.exceptions.ClientError as error:
                    _say(f"NOT DELETED {key} {item[key]}: {error}")
    for page in cloudwatch.get_paginator("describe_alarms").paginate(AlarmNamePrefix=prefix):
        names = [alarm["AlarmName"] for alarm in page["MetricAlarms"]]
        if names:
            cloudwatch.delete_alarms(AlarmNames=names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
