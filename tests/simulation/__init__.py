"""The bot in a simulated world: virtual time, one seed, faults of every kind, and a checker over what happened."""
