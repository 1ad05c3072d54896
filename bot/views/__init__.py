"""Values rendered as Block Kit and text; pure."""

from bot.views.blocks import Rendered
from bot.views.message import render

__all__ = ["Rendered", "render"]
