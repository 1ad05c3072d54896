"""The embedded world of the demo: processes of its own that know nothing of the bot."""
