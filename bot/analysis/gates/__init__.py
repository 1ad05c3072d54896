"""The gates by name."""
