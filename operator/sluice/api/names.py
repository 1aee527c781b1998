"""The names Sluice puts on Kubernetes and AWS objects: group, kinds, finalizer, annotations, tags."""

from typing import Final

GROUP: Final = "sluice.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "sluice"

MODEL: Final = "Model"
ENDPOINT_CONFIG: Final = "EndpointConfig"
ENDPOINT: Final = "Endpoint"
MODELS: Final = "models"
ENDPOINT_CONFIGS: Final = "endpointconfigs"
ENDPOINTS: Final = "endpoints"
# Between the operator and the routers; people do not write them.
ENDPOINT_ROUTE: Final = "EndpointRoute"
ENDPOINT_ROUTES: Final = "endpointroutes"
ROUTER_REPORT: Final = "RouterReport"
ROUTER_REPORTS: Final = "routerreports"

FINALIZER: Final = f"{GROUP}/endpoint"

# The placement that was pinned before the first AWS write (account, region, endpoint name).
EXTERNAL: Final = f"{GROUP}/external"
# Commands and switches that people set on an Endpoint.
ADOPT: Final = f"{GROUP}/adopt"
RETRY: Final = f"{GROUP}/retry"
ROLLBACK: Final = f"{GROUP}/rollback"
PROMOTE: Final = f"{GROUP}/promote"
PAUSE: Final = f"{GROUP}/pause"
REDEPLOY: Final = f"{GROUP}/redeploy"
IGNORE_FIRING: Final = f"{GROUP}/ignore-firing"
RECONCILE: Final = f"{GROUP}/reconcile"
RECONCILE_DISABLED: Final = "disabled"

# On a Namespace: its pods may call the routers of other namespaces.
INVOKE: Final = f"{GROUP}/invoke"
INVOKE_ALLOWED: Final = "allowed"

# On the EndpointRoute of an Endpoint that was deleted with deletionPolicy Retain: it and the fleets that it names serve
# on, and nothing collects them.
RETAINED: Final = f"{GROUP}/retained"

# The tag that says which installation, namespace and Endpoint an AWS object belongs to; one of SageMaker's 50.
OWNER_TAG: Final = f"{GROUP}/owner"
# The tag of an endpoint that was adopted: by default it stays when its object goes, also where the status is lost.
ADOPTED_TAG: Final = f"{GROUP}/adopted"
RESERVED_TAG_PREFIXES: Final = (f"{GROUP}/", "aws:")

BACKEND_CLUSTER: Final = "Cluster"
BACKEND_SAGEMAKER: Final = "SageMaker"

# SageMaker's limit on the names of models, endpoint configs, endpoints, variants and container hostnames.
MAX_NAME_LENGTH: Final = 63
