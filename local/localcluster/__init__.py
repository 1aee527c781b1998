"""A Kubernetes on this machine for the demo, the tests and the benchmark: tools, providers, images."""
