"""To watch and to page on: Prometheus' rules, Grafana's dashboard, a runbook, and a look at them.

Files for Prometheus and Grafana, and no part of the service: nothing here imports Ray.
"""
