"""What can be built: a stage of a Dockerfile in the checkout, under a name of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """A stage of a Dockerfile, and the paths in the checkout that it copies. The stage is called like the target."""

    name: str
    sources: tuple[str, ...]
    dockerfile: str = "Dockerfile"
    stage_name: str = ""

    @property
    def stage(self) -> str:
        """The stage's name in the Dockerfile."""
        return self.stage_name or self.name

    @property
    def variable(self) -> str:
        """The environment variable with which a user names an image of their own."""
        return f"SLUICE_{self.name.upper().replace('-', '_')}_IMAGE"
