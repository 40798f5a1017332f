"""The wire over gRPC: one servicer that knows neither a server nor Ray.

`servicer.py` has a method for every RPC, `rpc.py` the life of one, `reading.py` and `writing.py`
its messages, `status.py` what its errors are to gRPC, `health.py` the health protocol, and
`server.py` a server of our own.
"""
