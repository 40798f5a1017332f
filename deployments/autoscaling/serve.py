"""The policy as Serve calls it, inside Serve's controller. Of Ray it sees one object, by name.

What Serve 2.60 does around it (`ray/serve/_private/autoscaling_state.py`, `autoscaling_policy.py`):

- One object of the class per deployment, asked every 0.1 s. It is made anew, without a memory, when
  the controller restarts and when the deployment is deployed with another config; the ordered count
  survives in Serve's checkpoint. So nothing goes down before a whole `down_delay_s` has been seen.
- With no replica running and a request waiting, Serve does not ask: it orders one replica at once,
  and only that one until it runs. The request waits in the router of the gateway's handle, which
  tells the controller of it at once, for as long as the gateway lets it: `request_timeout_s`.
- Serve applies its own delays and factors to the answer: `app.py` sets them to nothing.
- A metric that a replica reports is a series of points, `look_back_period_s / 5` apart, sent every
  `metrics_interval_s`, and kept for `look_back_period_s`.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

from deployments.autoscaling.policy import Autoscaler, Scaling
from deployments.autoscaling.readings import NAMES, Groups, Reading, Report

__all__ = ["TargetLatency"]


class _Point(Protocol):
    timestamp: float
    value: float


_Series = Mapping[str, Mapping[Hashable, Sequence[_Point]]]


class TargetLatency:
    """Serve's class policy; `policy_kwargs` are the fields of `Scaling`."""

    def __init__(self, **scaling: float) -> None:
        self._scaling = Scaling(**scaling)
        self._scaler = Autoscaler(self._scaling)
        self._groups = Groups()
        self._decided = (float("-inf"), 0)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:  # Serve's AutoscalingContext
        """The wanted count; what is known lives in this object, not in Serve's state."""
        at, wanted = self._decided
        due = context.current_time - at >= self._scaling.decide_s
        if due or context.target_num_replicas != wanted:  # Serve decides too, where there is none
            wanted = self._scaler.decide(self._read(context))
            self._decided = (context.current_time, wanted)
        return wanted, {}

    def _read(self, context: Any) -> Reading:
        return Reading(
            now=context.current_time,
            running=context.current_num_replicas,
            target=context.target_num_replicas,
            floor=context.capacity_adjusted_min_replicas,
            ceiling=context.capacity_adjusted_max_replicas,
            held=0.0 if context.current_num_replicas else context.total_num_requests,
            group=self._groups.read(_reports(context.raw_metrics or {})),
        )


def _reports(series: _Series) -> dict[Hashable, tuple[Report, Report]]:
    """The oldest and the newest report of every replica that has sent all there is to say."""
    replicas = set.intersection(*(set(series.get(name, ())) for name in NAMES))
    reports = {}
    for replica in replicas:
        every = [series[name][replica] for name in NAMES]
        if all(every):
            reports[replica] = (_report(every, 0), _report(every, -1))
    return reports


def _report(every: Sequence[Sequence[_Point]], which: int) -> Report:
    return Report(every[0][which].timestamp, *(points[which].value for points in every))
