"""The decision about one Endpoint on SageMaker: (spec, status, observation, now) -> status, actions, next look.

Read decide.py from top to bottom; each step it names is one module here."""
