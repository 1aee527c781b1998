"""The three kinds, their status and their conditions: the single source of the CRDs."""
