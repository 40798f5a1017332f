"""How many replicas a group has, from the tokens in them. No Ray: Serve calls it by its path.

`load` is the replica's side, `readings` what the policy is told, `policy` what it decides, `serve`
how Serve asks. The simulator in `loadtests/` asks the same policy.
"""

from __future__ import annotations

from deployments.autoscaling.load import Load
from deployments.autoscaling.policy import Autoscaler, Scaling
from deployments.autoscaling.readings import Group, Reading
from deployments.autoscaling.serve import TargetLatency

__all__ = ["Autoscaler", "Group", "Load", "Reading", "Scaling", "TargetLatency"]
