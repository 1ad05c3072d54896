"""The page of the sandbox: Slack on the left, the mesh and its faults on the right. Plain HTML, no build step."""
