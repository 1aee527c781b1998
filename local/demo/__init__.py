"""The demo: from `kubectl apply` to a simulated SageMaker endpoint, a canary, a rollback by alarm and the fix.

`python -m demo` tells the story in a terminal; the cluster tests call the same steps."""
