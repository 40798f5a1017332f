"""Who may decide in the simulator: our policy, Serve's own, and a fixed count."""

from __future__ import annotations

from collections import deque
from typing import Any

from deployments.autoscaling import Autoscaler, Group, Reading, Scaling
from loadtests.simulator.cluster import Counters

__all__ = ["Fixed", "OngoingRequests", "Ours"]

_LOOK_BACK_S = 30.0  # Serve's default


class Fixed:
    """Always so many."""

    def __init__(self, replicas: int) -> None:
        self.name = f"{replicas} fixed"
        self._replicas = replicas

    def decide(self, now: float, running: int, target: int, counters: Counters) -> int:
        """That many."""
        return self._replicas


class Ours:
    """`deployments.autoscaling.Autoscaler`, the object that Serve's controller asks."""

    name = "target latency"

    def __init__(self, scaling: Scaling, floor: int, ceiling: int) -> None:
        self.scaler = Autoscaler(scaling)
        self._floor, self._ceiling = floor, ceiling
        self._before: tuple[float, Counters] | None = None
        self._rates = (0.0, 0.0)

    def decide(self, now: float, running: int, target: int, counters: Counters) -> int:
        """What the policy says to a reading made of the counters."""
        group = self._group(now, counters) if running else None
        held = 0.0 if running else counters.interactive + counters.bulk
        reading = Reading(now, running, target, self._floor, self._ceiling, held, group)
        return self.scaler.decide(reading)

    def _group(self, now: float, counters: Counters) -> Group | None:
        if self._before is None:
            self._before = (now, counters)
            return None
        at, before = self._before
        work: tuple[tuple[float, float, float], ...] = ()
        if counters is not before and now > at:
            self._before = (now, counters)
            self._rates = (
                (counters.interactive_arrived - before.interactive_arrived) / (now - at),
                (counters.bulk_arrived - before.bulk_arrived) / (now - at),
            )
            work = (
                (
                    counters.served - before.served,
                    counters.busy_s - before.busy_s,
                    counters.token_s - before.token_s,
                ),
            )
        return Group(
            counters.interactive,
            counters.bulk,
            *self._rates,
            counters.interactive_age_s,
            counters.bulk_age_s,
            work,
        )


class OngoingRequests:
    """Serve's default policy, by Ray's own functions of `ray/serve/autoscaling_policy.py`.

    They are composed as there in `_apply_autoscaling_config`, which itself cannot be asked about
    another time than now. `target_ongoing_requests` is per replica; the delays are Serve's own. It
    is told of single requests, though in the service it would only see coalesced flights.
    """

    def __init__(self, ongoing: float, floor: int, ceiling: int, request_tokens: float) -> None:
        from ray.serve.config import AutoscalingConfig

        self.name = f"ongoing {ongoing:g}"
        self._config = AutoscalingConfig(
            min_replicas=floor, max_replicas=ceiling, target_ongoing_requests=ongoing
        )
        self._request_tokens = request_tokens
        self._seen: deque[tuple[float, float]] = deque()
        self._state: dict[str, Any] = {}

    def decide(self, now: float, running: int, target: int, counters: Counters) -> int:
        """What Serve would order: the mean of its look-back, its delays, its bounds."""
        ongoing = (counters.interactive + counters.bulk) / self._request_tokens
        self._seen.append((now, ongoing))
        while self._seen[0][0] < now - _LOOK_BACK_S:
            self._seen.popleft()
        mean = sum(seen for _, seen in self._seen) / len(self._seen)
        wanted = self.ask(now, running, target, mean)
        return min(max(wanted, self._config.min_replicas), self._config.max_replicas)

    def ask(self, now: float, running: int, target: int, requests: float) -> int:
        """Ray's answer to so many ongoing requests."""
        from ray.serve import autoscaling_policy as ray

        context = self.context(now, running, target, requests)
        first = ray._get_cold_start_scale_up_replicas(context)
        if first is not None:
            return int(first)
        desired, _ = ray._core_replica_queue_length_policy(context)
        scaled = ray._apply_scaling_factors(desired, running, self._config)
        if running == 0 and scaled > 0:
            return int(scaled)
        wanted, self._state = ray._apply_delay_logic(
            max(0, scaled), target, self._config, self._state, now
        )
        return int(wanted)

    def context(self, now: float, running: int, target: int, requests: float) -> Any:
        """What Serve's controller would hand to a policy."""
        from ray.serve._private.common import DeploymentID
        from ray.serve.config import AutoscalingContext

        return AutoscalingContext(
            deployment_id=DeploymentID(name="modelled"),
            deployment_name="modelled",
            app_name=None,
            current_num_replicas=running,
            target_num_replicas=target,
            running_replicas=[],
            total_num_requests=requests,
            total_queued_requests=None,
            aggregated_metrics=None,
            raw_metrics=None,
            capacity_adjusted_min_replicas=self._config.min_replicas,
            capacity_adjusted_max_replicas=self._config.max_replicas,
            policy_state=dict(self._state),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now,
            config=self._config,
        )
