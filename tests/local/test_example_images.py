"""Images made on demand: whose they are, what they are called, and that their making leaves the cluster's network."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from localcluster import contrary, paths, prometheus, registry
from localcluster.__main__ import main
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.images import examples, product
from localcluster.images.dockerfile import Target

PACK = paths.CHECKOUT / "examples" / "models" / "pack.py"
MADE = Target("example-nothing", ("locks/operator.lock",), stage_name="files")

EVERY = (
    *examples.TARGETS.values(),
    *(product.OPERATOR, product.ROUTER, product.SIMULATOR),
    *(contrary.IMAGE, registry.IMAGE, prometheus.IMAGE, prometheus.PROGRAMS),
)


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_CACHE", str(tmp_path))


def test_a_users_own_image_is_taken_and_nothing_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLUICE_EXAMPLE_MLFLOW_IMAGE", "registry.example/mlflow@sha256:12")
    theirs = Cluster("named", "kubeconfig", tmp_path / "theirs", tmp_path)
    assert examples.image(theirs, examples.MLFLOW) == "registry.example/mlflow@sha256:12"


@pytest.mark.parametrize("target", EVERY, ids=lambda target: target.name)
def test_every_target_names_a_stage_and_sources_that_exist(target: Target) -> None:
    dockerfile = (paths.CHECKOUT / target.dockerfile).read_text()
    assert f" AS {target.stage}\n" in dockerfile
    assert all((paths.CHECKOUT / source).exists() for source in target.sources)


def test_what_is_missing_is_made_by_a_process_outside_of_the_clusters_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    program = "import json, os, sys; json.dump([sys.argv[2:], 'SLUICE_OUTSIDE' in os.environ], open(sys.argv[1], 'w'))"
    outside = [sys.executable, "-c", program, str(asked)]
    monkeypatch.setenv(product.OUTSIDE_VARIABLE, shlex.join(outside))

    product.export(MADE)

    command, has_outside = json.loads(asked.read_text())
    assert command == [sys.executable, "-m", "localcluster", "files", "example-nothing"]
    assert not has_outside, "it would go outside for ever"


def test_a_making_outside_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(product.OUTSIDE_VARIABLE, "false")
    with pytest.raises(LocalClusterError, match="making example-nothing ended with code 1"):
        product.build(MADE)


def test_packed_model_data_says_nothing_of_when_and_by_whom(tmp_path: Path) -> None:
    archives = []
    for number, minutes in enumerate((1, 2)):
        directory = tmp_path / str(number)
        (directory / "code").mkdir(parents=True)
        (directory / "code" / "inference.py").write_text("x = 1")
        (directory / "weights").write_bytes(b"1")
        os.utime(directory / "weights", (minutes * 60, minutes * 60))
        (directory / "weights").chmod(0o600 if number else 0o640)
        archives.append(tmp_path / f"{number}.tar.gz")
        argv = [sys.executable, PACK, directory, archives[-1]]
        subprocess.run(argv, check=True)  # noqa: S603  our own program

    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as tar:
        assert tar.getnames() == ["code", "code/inference.py", "weights"]


def test_an_unknown_target_is_named_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["images", "example-nonsense"]) == 1
    said = capsys.readouterr().err
    assert "unknown target example-nonsense" in said
    assert "example-mlflow-models" in said
