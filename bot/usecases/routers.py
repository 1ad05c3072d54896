"""Which router serves a service."""

from bot.errors import UserError
from bot.ports.mesh import Mesh
from bot.usecases.desk import Desk


def router(desk: Desk, mesh: str) -> Mesh:
    """The router of a mesh by name, "" for the only one; UserError names the known ones."""
    if not mesh and len(desk.meshes) == 1:
        return next(iter(desk.meshes.values()))
    if mesh in desk.meshes:
        return desk.meshes[mesh]
    known = ", ".join(f"`{name}`" for name in sorted(desk.meshes))
    raise UserError(f"No router for the mesh `{mesh or 'unnamed'}` is configured.", f"Known: {known}.")
