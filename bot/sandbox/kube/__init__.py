"""A small, strict Kubernetes API server in memory: what the official client sees is what a real one would send.

It is a test double, so where it cannot be exact it is stricter than the real server, never kinder. Objects are
plain JSON values that are never changed in place; a new state shares everything that did not change.
"""
