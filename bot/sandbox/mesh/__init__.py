"""The sandbox's mesh: a real Envoy, workloads behind it, the routes as istiod would write them, traffic and metrics.

Envoy's own access log is the only source of numbers: one line per request for the client's side, one per attempt that
reached a workload for the server's side. Nothing here counts what Envoy did not see.
"""
