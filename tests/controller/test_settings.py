"""Settings are read strictly, and their reference is what the module says."""

from pathlib import Path

import pytest

from sluice.main.settings import Settings, SettingsError, reference


def test_defaults_need_no_environment() -> None:
    settings = Settings.from_environment({"PATH": "/bin", "AWS_REGION": "eu-west-1"})
    assert settings.settle_seconds == 5
    assert settings.lease_seconds == 15
    assert settings.identity
    assert settings.watch_namespaces == ()
    assert settings.installation_id is None


def test_values_are_read() -> None:
    settings = Settings.from_environment(
        {
            "SLUICE_WATCH_NAMESPACES": "team-a, team-b,team-a",
            "SLUICE_READ_ONLY": "True",
            "SLUICE_LOG_LEVEL": "debug",
            "SLUICE_SAGEMAKER_MOVING_SECONDS": "0.5",
            "SLUICE_INSTALLATION_ID": " ",
        }
    )
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.read_only is True
    assert settings.log_level == "DEBUG"
    assert settings.sagemaker_moving_seconds == 0.5
    assert settings.installation_id is None


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("SLUICE_SETTLE_SECONDS", "31", "an integer from 0 to 30"),
        ("SLUICE_SETTLE_SECONDS", "-1", "an integer from 0 to 30"),
        ("SLUICE_WORKERS", "many", "an integer from 1 to 256"),
        ("SLUICE_READ_ONLY", "yes", "true, false, 1 or 0"),
        ("SLUICE_LOG_FORMAT", "xml", "one of json, plain"),
        ("SLUICE_WATCH_NAMESPACES", "Team_A", "namespace names"),
        ("SLUICE_AWS_CALLS_PER_SECOND", "0", "a number from 0.1 to 1000"),
        ("SLUICE_INSTALLATION_ID", "a/b", "letters"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(variable: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({variable: value})
    message = str(refused.value)
    assert variable in message
    assert repr(value) in message
    assert allowed in message


@pytest.mark.parametrize("url", ["https://ops:hunt@er2@prometheus:9090/p", "http://prometheus/?token=hun/t@er2"])
def test_what_lets_in_is_not_told(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({"SLUICE_PROMETHEUS_URL": url})
    assert "SLUICE_PROMETHEUS_URL: found 'http" in str(refused.value)
    assert "er2" not in str(refused.value)


def test_all_wrong_variables_are_told_at_once_and_unknown_ones_with_the_known() -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.from_environment({"SLUICE_SETLE_SECONDS": "5", "SLUICE_WORKERS": "0"})
    first, second = str(refused.value).splitlines()
    assert first.startswith("SLUICE_SETLE_SECONDS: unknown; known are ")
    assert "SLUICE_SETTLE_SECONDS" in first
    assert second.startswith("SLUICE_WORKERS: found '0'")


def test_what_kubernetes_says_about_services_is_no_setting() -> None:
    Settings.from_environment(
        {
            "SLUICE_METRICS_SERVICE_HOST": "10.96.0.7",
            "SLUICE_METRICS_SERVICE_PORT_HTTP": "8080",
            "SLUICE_METRICS_PORT_8080_TCP_ADDR": "10.96.0.7",
        }
    )


def test_the_reference_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs/reference/settings.md"
    assert page.read_text() == reference(), "run: python -m sluice.main.settings > docs/reference/settings.md"
