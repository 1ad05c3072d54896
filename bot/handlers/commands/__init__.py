"""The Slack commands by verb."""
