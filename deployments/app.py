"""Wiring, and only that: a config becomes a Serve application."""

# No `from __future__ import annotations` here: Serve reads a builder's annotation as an object, and
# hands over a plain dict where it finds a string.

import math
import warnings
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from deployments.config import AppConfig, ModelReplicas, Replicas
from deployments.gateway import Gateway
from deployments.measuring import Observing, observing
from deployments.placement import ReplicaGroup, place, wants_preprocessor
from deployments.preprocessor import Preprocessor
from deployments.replica import Replica
from serving.engines import EngineOptions
from serving.models.loading import load_spec
from serving.models.spec import ModelSpec

__all__ = ["build", "build_fused", "read_specs"]

# Our own gate refuses first and in our own words; Serve's bounds stand well behind it.
_SLACK = 2
# Flights of many gateways that a replica has under way; the engine's queue is the real bound.
_FLIGHTS = 1024
# What is taken for a full batch where the config does not say: a smaller one than an engine's is
# only cautious, it believes in a lower rate.
_BATCH_TOKENS = 4096
# Reports of replicas a second that the controller is given at most: each is a call to it.
_REPORTS_PER_S = 50
# Requests under way for which autoscaling wants one: an image takes a core for a tenth of a second.
_IMAGES_PER_PREPROCESSOR = 8

_DRAIN = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 30}
_HEALTH = {"health_check_period_s": 2, "health_check_timeout_s": 10}
# An access log of Serve's costs 5 % of a short request; our own log has what failed.
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


def build(args: AppConfig) -> serve.Application:
    """Gateway, Preprocessor where it is wanted, and a deployment for every replica group."""
    specs = read_specs(args)
    engines: dict[str, dict[str | None, Any]] = {}
    for group in place(args, specs):
        engines.setdefault(group.model.id, {})[group.task] = _replicas(group, observing(args))
    preprocessor = _preprocessor(args) if wants_preprocessor(args, specs) else None
    return _gateway(args, args.gateway.cpus, 0.0, engines, preprocessor)


def read_specs(config: AppConfig) -> dict[str, ModelSpec]:
    """Every model's facts by its id in the config, which decide what is deployed."""
    return {model.id: load_spec(model.entry(), weights=False) for model in config.models}


def build_fused(args: AppConfig) -> serve.Application:
    """Gateway and engines in one deployment: no hop, for small models."""
    cpus = args.gateway.cpus + sum(m.cpus_per_replica for m in args.models)
    gpus = sum(m.gpus for m in args.models)
    # Ray gives parts of one GPU, or whole ones.
    return _gateway(args, cpus, gpus if gpus < 1 else math.ceil(gpus), {}, None)


def _gateway(
    args: AppConfig,
    cpus: float,
    gpus: float,
    engines: Mapping[str, Mapping[str | None, Any]],
    preprocessor: DeploymentHandle[Any] | None,
) -> serve.Application:
    deployment = _deployment(serve.ingress()(Gateway)).options(
        name="Gateway",
        ray_actor_options={
            "num_cpus": cpus,
            "num_gpus": gpus,
            "resources": args.gateway.resources,
        },
        max_ongoing_requests=_SLACK * args.limits.requests,
        **_DRAIN,
        logging_config=_LOGGING,
        **_HEALTH,
        **_scale(args.gateway.replicas),
        max_surge_percent=args.gateway.replicas.max_surge_percent,
    )
    application: serve.Application = deployment.bind(args, engines, preprocessor)
    return application


def _preprocessor(args: AppConfig) -> Any:
    deployment = _deployment(Preprocessor).options(
        name="Preprocessor",
        ray_actor_options={
            "num_cpus": args.preprocessor.cpus,
            "resources": args.preprocessor.resources,
        },
        max_ongoing_requests=_FLIGHTS,
        **_DRAIN,
        logging_config=_LOGGING,
        **_HEALTH,
        **_scale(args.preprocessor.replicas, ongoing=_IMAGES_PER_PREPROCESSOR),
        max_surge_percent=args.preprocessor.replicas.max_surge_percent,
    )
    entries = [model.entry() for model in args.models]
    return deployment.bind(entries, args.media.options(), observing(args))


def _replicas(group: ReplicaGroup, told: Observing) -> Any:
    model = group.model
    options: EngineOptions = model.options()
    deployment = _deployment(Replica).options(
        name=group.name,
        ray_actor_options={
            "num_cpus": model.cpus_per_replica,
            "num_gpus": model.gpus,
            "resources": model.resources,
        },
        max_ongoing_requests=_FLIGHTS,
        **_DRAIN,
        logging_config=_LOGGING,
        **_HEALTH,
        **_scale_by_tokens(model.replicas, options.batch_tokens or _BATCH_TOKENS),
        max_surge_percent=model.replicas.max_surge_percent,
    )
    return deployment.bind(model.entry(), model.engine, options, told)


def _deployment(kind: type) -> Any:  # Ray annotates `deployment` as the decorator it also is
    return serve.deployment(kind)


def _scale(replicas: Replicas, ongoing: int = 64) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.min}
    return {
        "autoscaling_config": AutoscalingConfig(
            **_bounds(replicas), target_ongoing_requests=ongoing
        )
    }


def _scale_by_tokens(replicas: ModelReplicas, batch_tokens: int) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.min}
    report_s = min(max(replicas.max / _REPORTS_PER_S, 2.0), 10.0)
    policy = AutoscalingPolicy(
        policy_function="deployments.autoscaling:TargetLatency",
        policy_kwargs={
            "batch_tokens": batch_tokens,
            "target_latency_s": replicas.target_latency_s,
            "bulk_latency_s": replicas.bulk_latency_s,
            "start_s": replicas.start_s,
            "down_delay_s": replicas.down_delay_s,
            "idle_s": replicas.idle_s,
        },
    )
    with warnings.catch_warnings():  # deprecated for two variables that Ray 2.60 does not read
        warnings.simplefilter("ignore", DeprecationWarning)
        config = AutoscalingConfig(
            **_bounds(replicas),
            policy=policy,
            metrics_interval_s=report_s,
            look_back_period_s=5 * report_s,  # a point is taken every fifth of it
            upscale_delay_s=0,  # the policy has its own delays, and knows why
            downscale_delay_s=0,
        )
    return {"autoscaling_config": config}


def _bounds(replicas: Replicas) -> dict[str, int]:
    return {"min_replicas": replicas.min, "max_replicas": replicas.max}
