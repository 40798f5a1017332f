"""Wiring, and only that: a config becomes a Serve application."""

# No `from __future__ import annotations` here: Serve reads a builder's annotation as an object, and
# hands over a plain dict where it finds a string.

import math
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.handle import DeploymentHandle

from deployments.config import AppConfig, Replicas
from deployments.gateway import Gateway
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
# Batches' worth of waiting tokens for which autoscaling wants one replica.
_BATCHES_PER_REPLICA = 8
_BATCH_TOKENS = 4096
# Requests under way for which autoscaling wants one: an image takes a core for a tenth of a second.
_IMAGES_PER_PREPROCESSOR = 8

_DRAIN = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 30}
_HEALTH = {"health_check_period_s": 2, "health_check_timeout_s": 15}
# An access log of Serve's costs 5 % of a short request; our own log has what failed.
_LOGGING = {"log_level": "WARNING", "enable_access_log": False}


def build(args: AppConfig) -> serve.Application:
    """Gateway, Preprocessor where it is wanted, and a deployment for every replica group."""
    specs = read_specs(args)
    engines: dict[str, dict[str | None, Any]] = {}
    for group in place(args, specs):
        engines.setdefault(group.model.id, {})[group.task] = _replicas(group)
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
        ray_actor_options={"num_cpus": cpus, "num_gpus": gpus},
        max_ongoing_requests=_SLACK * args.limits.requests,
        **_DRAIN,
        logging_config=_LOGGING,
        **_HEALTH,
        **_scale(args.gateway.replicas, by_tokens=None),
    )
    application: serve.Application = deployment.bind(args, engines, preprocessor)
    return application


def _preprocessor(args: AppConfig) -> Any:
    deployment = _deployment(Preprocessor).options(
        name="Preprocessor",
        ray_actor_options={"num_cpus": args.preprocessor.cpus},
        max_ongoing_requests=_FLIGHTS,
        **_DRAIN,
        logging_config=_LOGGING,
        **_HEALTH,
        **_scale(args.preprocessor.replicas, by_tokens=None, ongoing=_IMAGES_PER_PREPROCESSOR),
    )
    return deployment.bind([model.entry() for model in args.models], args.media.options())


def _replicas(group: ReplicaGroup) -> Any:
    model = group.model
    options: EngineOptions = model.options()
    tokens = _BATCHES_PER_REPLICA * (options.batch_tokens or _BATCH_TOKENS)
    deployment = _deployment(Replica).options(
        name=group.name,
        ray_actor_options={
            "num_cpus": model.cpus_per_replica,
            "num_gpus": model.gpus,
        },
        max_ongoing_requests=_FLIGHTS,
        **_DRAIN,
        logging_config=_LOGGING,
        **_HEALTH,
        **_scale(model.replicas, by_tokens=tokens),
    )
    return deployment.bind(model.entry(), model.engine, options)


def _deployment(kind: type) -> Any:  # Ray annotates `deployment` as the decorator it also is
    return serve.deployment(kind)


def _scale(replicas: Replicas, by_tokens: int | None, ongoing: int = 64) -> dict[str, Any]:
    if replicas.min == replicas.max:
        return {"num_replicas": replicas.min}
    bounds = {"min_replicas": replicas.min, "max_replicas": replicas.max}
    if by_tokens is None:
        return {"autoscaling_config": AutoscalingConfig(**bounds, target_ongoing_requests=ongoing)}
    policy = AutoscalingPolicy(
        policy_function="deployments.autoscaling:QueuedTokens",
        policy_kwargs={"tokens_per_replica": by_tokens},
    )
    return {"autoscaling_config": AutoscalingConfig(**bounds, policy=policy)}
