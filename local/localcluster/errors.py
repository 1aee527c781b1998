"""The one exception that a person is meant to read: it says what is missing or broken, and what to do."""

from __future__ import annotations


class LocalClusterError(Exception):
    """A step of the local cluster could not be done; the message names the thing, what was found and the remedy."""
