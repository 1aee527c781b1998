"""A real Envoy, containers and callers for the router's tests."""
