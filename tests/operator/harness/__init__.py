"""The library of the operator's tests: a real API server, the SageMaker simulator and the operator as a process."""
