"""Image tags name what went in, and a build gets the machine's pip settings without keeping them."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcluster.images import buildah
from localcluster.images.pip_settings import pip_conf, pip_settings
from localcluster.images.product import content_key


def test_the_tag_changes_with_content_and_names_but_not_with_caches(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1")
    first = content_key([tmp_path / "code"], "base")
    (tmp_path / "code" / "__pycache__").mkdir()
    (tmp_path / "code" / "__pycache__" / "a.pyc").write_text("compiled")
    assert content_key([tmp_path / "code"], "base") == first

    assert content_key([tmp_path / "code"], "another base") != first
    (tmp_path / "code" / "a.py").rename(tmp_path / "code" / "b.py")
    assert content_key([tmp_path / "code"], "base") != first


def test_pip_settings_become_a_configuration_that_names_the_mounted_certificates() -> None:
    environment = {
        "PIP_INDEX_URL": "https://pip.example/simple",
        "PIP_CERT": "/host/ca.pem",
        "PIP_USER": "1",
        "HOME": "/",
    }
    assert pip_conf(environment, has_certificates=True) == (
        "[global]\ncert = /run/certificates.pem\nindex-url = https://pip.example/simple\n"
    )


def test_the_settings_last_no_longer_than_the_build(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("certificate")
    with pip_settings({"PIP_CERT": str(authority), "PIP_FIND_LINKS": f"{tmp_path} /nowhere"}) as settings:
        assert settings.secrets() == [
            f"--secret=id=pip,src={settings.configuration}",
            f"--secret=id=certificates,src={authority}",
        ]
        assert settings.wheel_directories == (tmp_path,)
        written = settings.configuration
    assert not written.exists()


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ('ID=debian\nVERSION_CODENAME=bookworm\nVERSION="12 (bookworm)"\n', ["bookworm"]),
        ('ID=ubuntu\nVERSION_CODENAME="noble"\n', ["--components=main,universe", "noble"]),
    ],
)
def test_the_base_system_comes_from_where_its_packages_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, words: list[str]
) -> None:
    (tmp_path / "os-release").write_text(system)
    monkeypatch.setattr(buildah, "_OS_RELEASE", tmp_path / "os-release")
    root = tmp_path / "root.tar"
    assert buildah._bootstrap(root)[3:] == [*words, str(root)]
