"""Slack and HTTP coming in, translated into use cases."""
