"""Lint, format, types and layers count as tests, so that one command and one summary say whether all is well."""

from __future__ import annotations

import pytest

from localcluster.checks import CHECKS, Check


@pytest.mark.parametrize("check", CHECKS, ids=[check.name for check in CHECKS])
def test_static_check(check: Check) -> None:
    result = check.run()
    assert result.returncode == 0, f"`{' '.join(check.argv)}` found:\n{result.stdout}"
