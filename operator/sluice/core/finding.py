"""Something a person must mend, as one value: reason for machines, message for people."""

from dataclasses import dataclass

from sluice.api.reasons import Reason


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition's reason and message; the message names object, field, found, allowed and what to do."""

    reason: Reason
    message: str
    field: str = ""
    """The field path, for example spec.deploymentConfig.blueGreenUpdatePolicy...canarySize.value."""

    def text(self) -> str:
        """The message with its field path in front."""
        return f"{self.field}: {self.message}" if self.field else self.message
