"""What can be known of the workflows of GitHub without running them."""

from __future__ import annotations

import re
from typing import Any

import yaml

from localcluster import paths

WORKFLOWS = paths.CHECKOUT / ".github" / "workflows"


def steps(workflow: str, job: str) -> list[dict[str, Any]]:
    """The steps of a job."""
    content = yaml.safe_load((WORKFLOWS / workflow).read_text())
    return list(content["jobs"][job]["steps"])


def test_a_release_has_every_image_that_the_charts_name() -> None:
    published = {
        step["with"]["target"] for step in steps("release.yaml", "publish") if "target" in step.get("with", {})
    }
    named = set()
    for values in paths.CHECKOUT.glob("charts/*/values.yaml"):
        named |= set(re.findall(r"^ *repository: sluice/(\S+)$", values.read_text(), re.M))
    assert named == {"operator", "router", "simulator"}
    assert published == named


def test_the_cache_is_one_that_can_be_written() -> None:
    """actions/cache refuses a path with `..`, and never writes a key anew: whatever decides a build belongs into it."""
    every = steps("ci.yaml", "test")
    cache = next(step for step in every if step.get("uses", "").startswith("actions/cache@"))["with"]
    job = yaml.safe_load((WORKFLOWS / "ci.yaml").read_text())["jobs"]["test"]
    assert cache["path"] == "${{ env.SLUICE_CACHE }}/tools"
    assert ".." not in job["env"]["SLUICE_CACHE"].split("/")
    go = next(step for step in every if step.get("uses", "").startswith("actions/setup-go@"))
    assert f"steps.{go['id']}.outputs.go-version" in cache["key"]


def test_the_cluster_of_ci_is_one_whose_pods_are_reached() -> None:
    job = yaml.safe_load((WORKFLOWS / "ci.yaml").read_text())["jobs"]["test"]
    assert job["env"]["SLUICE_PROVIDER"] == "node"
