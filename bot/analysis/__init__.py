"""Judgement: gates, PromQL builders, statistics and node health; pure."""
