"""The operator as a pod: tests on the whole cluster that `make up` started, entered by `make test`."""
