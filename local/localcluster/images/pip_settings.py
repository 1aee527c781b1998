"""Hands this machine's pip settings and certificates to the pip inside an image build, for the build alone."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

# Where the Dockerfile mounts the certificates.
_CERTIFICATES_INSIDE = "/run/certificates.pem"
_CERTIFICATE_VARIABLES = ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
# pip's own switches that would only disturb there; the certificate is replaced by the mounted one.
_LEFT_OUT = frozenset({"cert", "require-virtualenv", "user", "target", "cache-dir", "config-file"})
_PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


@dataclass(frozen=True)
class PipSettings:
    """Two files for the build's secret mounts, and local folders of wheels that the settings name."""

    configuration: Path
    certificates: Path | None
    wheel_directories: tuple[Path, ...]

    def secrets(self) -> list[str]:
        """The build command's options that mount the files."""
        options = [f"--secret=id=pip,src={self.configuration}"]
        if self.certificates:
            options.append(f"--secret=id=certificates,src={self.certificates}")
        return options


@contextmanager
def pip_settings(environment: Mapping[str, str] = os.environ) -> Iterator[PipSettings]:
    """Write the PIP_* variables of `environment` as a pip.conf that names the mounted certificates."""
    certificates = _certificates(environment)
    with TemporaryDirectory(prefix="sluice-pip-") as directory:
        configuration = Path(directory) / "pip.conf"
        configuration.write_text(pip_conf(environment, has_certificates=certificates is not None))
        wheels = [Path(word) for word in environment.get("PIP_FIND_LINKS", "").split() if Path(word).is_dir()]
        yield PipSettings(configuration, certificates, tuple(wheels))


def pip_conf(environment: Mapping[str, str], *, has_certificates: bool) -> str:
    """A pip.conf that says what the PIP_* variables say."""
    lines = ["[global]"]
    if has_certificates:
        lines.append(f"cert = {_CERTIFICATES_INSIDE}")
    for variable, value in sorted(environment.items()):
        option = variable.removeprefix("PIP_").lower().replace("_", "-")
        if variable.startswith("PIP_") and value and option not in _LEFT_OUT:
            lines.append(f"{option} = {value}")
    return "\n".join(lines) + "\n"


def proxy_arguments(environment: Mapping[str, str] = os.environ) -> list[str]:
    """The proxies as the build arguments that every builder knows and keeps out of the image."""
    return [f"--build-arg={name}={environment[name]}" for name in _PROXY_VARIABLES if environment.get(name)]


def _certificates(environment: Mapping[str, str]) -> Path | None:
    candidates = [environment.get(variable) for variable in _CERTIFICATE_VARIABLES]
    candidates.append(ssl.get_default_verify_paths().cafile)
    candidates.append("/etc/ssl/certs/ca-certificates.crt")
    return next((Path(file) for file in candidates if file and Path(file).is_file()), None)
