"""Decisions about Endpoints that run in the cluster."""
