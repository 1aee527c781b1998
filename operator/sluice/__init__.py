"""Sluice: Amazon SageMaker's hosting contract as Kubernetes resources. See docs/architecture.md for the rooms."""

__version__ = "0.1.0"
