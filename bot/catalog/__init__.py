"""The catalog: services, plans, gates, people and channels in one YAML file; all its errors at once, with lines."""

from bot.catalog.errors import CatalogError, CatalogErrors
from bot.catalog.model import Catalog, Roles, ServiceEntry
from bot.catalog.reading import load
from bot.catalog.reloading import Poll, Reloading

__all__ = ["Catalog", "CatalogError", "CatalogErrors", "Poll", "Reloading", "Roles", "ServiceEntry", "load"]
