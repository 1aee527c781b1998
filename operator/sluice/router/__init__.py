"""The agent beside Envoy: compiles EndpointRoutes and EndpointSlices into what Envoy is told, in an order that loses
nothing, and reports what Envoy has in force. A process of its own (`python -m sluice.router`)."""
