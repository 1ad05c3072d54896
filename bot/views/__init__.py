"""Values rendered as Block Kit and text; pure."""
