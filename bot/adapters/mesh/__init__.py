"""Mesh routers by name, each with the permissions it needs."""
