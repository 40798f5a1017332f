"""Simulated users: people who search, programs that index, over HTTP and gRPC. `make load`.

A user asks one kind of question (`mixes.py`) and there are as many users of a kind as its share.
Locust spends far more on a request than `bench.py`: use it for behaviour under a mixture of users,
and `bench.py` or `saturate.py` for what the server can do.
"""

from __future__ import annotations

from loadtests.mixes import KINDS
from loadtests.users import grpc_user, http_user

__all__: list[str] = []

for _kind in KINDS:
    globals()[f"{_kind.name.title()}"] = http_user(_kind)
    globals()[f"Grpc{_kind.name.title()}"] = grpc_user(_kind)
