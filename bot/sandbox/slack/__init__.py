"""A stand-in for Slack: Web API, Socket Mode, signed HTTP and the people at the other end.

It is stricter than Slack and never kinder: what Slack refuses is refused here with the same error code.
"""
