"""Command lines for people and for CI."""
