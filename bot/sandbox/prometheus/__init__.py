"""The sandbox's Prometheus: the real one when it is on PATH, else an embedded one behind the same HTTP API."""
