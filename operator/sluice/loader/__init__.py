"""Downloads model data in an init container, before the model's container starts: a process of its own.

`python -m sluice.loader` reads SLUICE_LOADER (request.py), looks at every source (load.py), compares what it finds with
what was recorded for the fleet (version.py), downloads (download.py), unpacks (unpack.py), keeps a node-local cache if
there is one (cache.py), moves everything into place at the end (place.py) and says in the termination message what it
took or why it failed (message.py)."""
