"""A stand-in for SageMaker's hosting API: the nine endpoint statuses and the deployment guardrails, on a clock.

It speaks AWS's own wire protocols to an unmodified boto3, so a client cannot tell it apart by shape, only by speed.
"""
