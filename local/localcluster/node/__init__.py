"""The Docker-free single node: a whole Kubernetes inside one network, mount and process namespace of its own."""
