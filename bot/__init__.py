"""A Slack bot that runs canary releases on the mesh routes a team already has."""
