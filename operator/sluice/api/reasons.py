"""Every condition type, condition reason and command outcome that Sluice writes: one list, so that docs and tests
can be complete. Reasons are CamelCase words of the field (Kubernetes' and SageMaker's)."""

from enum import StrEnum


class ConditionType(StrEnum):
    """Condition types. Ready, Reconciling and Stalled are kstatus'; Serving and RolledOut are Sluice's."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    SERVING = "Serving"
    ROLLED_OUT = "RolledOut"
    FIELDS_IGNORED = "FieldsIgnored"
    # Of backend Cluster. Like FieldsIgnored they say something beside Ready and never change it.
    IMAGE_DRIFT = "ImageDrift"
    SOURCE_MOVED = "SourceMoved"
    ZONE_SPREAD_UNMET = "ZoneSpreadUnmet"
    TEMPLATE_OUTDATED = "TemplateOutdated"
    SAMPLE_INVOCATION_FAILING = "SampleInvocationFailing"


class Reason(StrEnum):
    """Why a condition has its status."""

    # steady
    IN_SERVICE = "InService"
    ACCEPTED = "Accepted"
    ROLLED_OUT = "RolledOut"
    NOT_REFERENCED = "NotReferenced"
    WAITING_FOR_ENDPOINTS = "WaitingForEndpoints"
    SETTLED = "Settled"
    NOTHING_STALLED = "NothingStalled"

    # on the way
    PENDING = "Pending"
    CREATING = "Creating"
    SETTLING = "Settling"
    DEPLOYMENT_QUEUED = "DeploymentQueued"
    DEPLOYING = "Deploying"
    UPDATING_VARIANTS = "UpdatingVariants"
    UPDATING_TAGS = "UpdatingTags"
    WAITING_FOR_SAGEMAKER = "WaitingForSageMaker"
    SYSTEM_UPDATING = "SystemUpdating"
    ROLLING_BACK = "RollingBack"
    RECREATING = "Recreating"
    RECOVERING = "Recovering"
    ADOPTING = "Adopting"
    DELETING = "Deleting"
    ALARM_FIRING = "AlarmFiring"
    ALARMS_UNREADABLE = "AlarmsUnreadable"
    CORRECTING_DRIFT = "CorrectingDrift"
    ENDING_FOREIGN_UPDATE = "ForeignUpdate"
    PROVISIONING = "Provisioning"
    WAITING_FOR_ROUTERS = "WaitingForRouters"
    DRAINING = "Draining"
    PAUSED = "Paused"

    # what blocks pods of a fleet; it goes on by itself when the cause is gone
    UNSCHEDULABLE = "Unschedulable"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    CRASH_LOOPING = "CrashLooping"
    MODEL_DATA_FAILED = "ModelDataFailed"
    PING_FAILING = "PingFailing"
    SAMPLE_INVOCATION_FAILED = "SampleInvocationFailed"
    POD_REFUSED = "PodRefused"
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    ROUTER_NOT_CONVERGED = "RouterNotConverged"

    # a person must act (Stalled=True) or something outside must
    MISSING_REFERENCE = "MissingReference"
    INVALID_SPEC = "InvalidSpec"
    INVALID_DEPLOYMENT_CONFIG = "InvalidDeploymentConfig"
    UNKNOWN_INSTANCE_TYPE = "UnknownInstanceType"
    NOT_PERMITTED = "NotPermitted"
    NOT_SUPPORTED_BY_BACKEND = "NotSupportedByBackend"
    BACKEND_NOT_AVAILABLE = "BackendNotAvailable"
    PLACEMENT_CHANGED = "PlacementChanged"
    NAME_CONFLICT = "NameConflict"
    NOT_OWNED = "NotOwned"
    ADOPTION_DIFFERS = "AdoptionDiffers"
    ROLLED_BACK = "RolledBack"
    HELD_BY_ROLLBACK = "HeldByRollback"
    IMAGE_BRAKED = "ImageBraked"
    CREATION_FAILED = "CreationFailed"
    ENDPOINT_FAILED = "EndpointFailed"
    OUT_OF_SERVICE = "OutOfService"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"
    VARIANT_UPDATE_FAILED = "VariantUpdateFailed"
    ALARM_MISSING = "AlarmMissing"
    ALARM_UNFIT = "AlarmUnfit"
    DRIFTED = "Drifted"
    FOREIGN_OWNER = "ForeignOwner"
    REJECTED_BY_SAGEMAKER = "RejectedBySageMaker"
    REJECTED_BY_KUBERNETES = "RejectedByKubernetes"
    ACCESS_DENIED = "AccessDenied"
    QUOTA_EXCEEDED = "QuotaExceeded"
    NO_CREDENTIALS = "NoCredentials"
    THROTTLED = "Throttled"
    UNREACHABLE = "Unreachable"
    RECONCILE_DISABLED = "ReconcileDisabled"
    READ_ONLY = "ReadOnly"
    FIELDS_IGNORED = "FieldsIgnored"
    IMAGE_DRIFT = "ImageDrift"
    SOURCE_MOVED = "SourceMoved"
    ZONE_SPREAD_UNMET = "ZoneSpreadUnmet"
    TEMPLATE_OUTDATED = "TemplateOutdated"
    SAMPLE_INVOCATION_FAILING = "SampleInvocationFailing"


def reason_of(text: str, otherwise: Reason) -> Reason:
    """The reason that a status names; `otherwise` for one that only another version of the operator knows."""
    try:
        return Reason(text)
    except ValueError:
        return otherwise


class CommandResult(StrEnum):
    """What became of a command annotation (the capability table's outcomes)."""

    DONE = "Done"
    QUEUED = "Queued"
    REFUSED = "Refused"

    @classmethod
    def _missing_(cls, value: object) -> "CommandResult | None":
        """What only a newer operator knows was an answer all the same. A status that cannot be read counts as lost."""
        return cls.REFUSED if isinstance(value, str) else None


class Outcome(StrEnum):
    """How a deployment ended."""

    SUCCEEDED = "Succeeded"
    ROLLED_BACK = "RolledBack"
    UPDATE_ROLLBACK_FAILED = "UpdateRollbackFailed"
    FAILED = "Failed"
    SUPERSEDED = "Superseded"

    @classmethod
    def _missing_(cls, value: object) -> "Outcome | None":
        """What only a newer operator knows is no success."""
        return cls.FAILED if isinstance(value, str) else None


class Cause(StrEnum):
    """What triggered the end of a deployment that did not succeed."""

    NONE = "None"
    ALARM = "Alarm"
    ALARMS_UNREADABLE = "AlarmsUnreadable"
    HEALTH = "Health"
    CAPACITY = "Capacity"
    DEADLINE = "Deadline"
    MODEL_DATA = "ModelData"
    PERSON = "Person"
    SILENT = "Silent"
    UNKNOWN = "Unknown"

    @classmethod
    def _missing_(cls, value: object) -> "Cause | None":
        """What only a newer operator knows."""
        return cls.UNKNOWN if isinstance(value, str) else None
