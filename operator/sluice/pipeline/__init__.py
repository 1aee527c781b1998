"""Calls the containers of a serial inference pipeline one after another: a process of its own in their pod."""
