"""Sluice: Amazon SageMaker's hosting contract as Kubernetes resources. See docs/architecture.md for the rooms."""

import os

# Where awscrt can be imported botocore would sign with it. It is here for the loader's checksums alone.
os.environ.setdefault("BOTO_DISABLE_CRT", "true")

__version__ = "0.1.0"
