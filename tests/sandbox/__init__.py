"""The sandbox's own promises."""
