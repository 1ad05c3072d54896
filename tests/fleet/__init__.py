"""Several processes of the bot on one Redis, with real parts."""
