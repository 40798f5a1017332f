"""A client of the service, over HTTP or gRPC: `Client`, and `AsyncClient` for asyncio.

    with Client("http://127.0.0.1:8000", api_key) as client:
        vectors = client.embed(texts, model="jina-embeddings-v4", task="retrieval.passage").vectors

Long lists are split, some of the parts are asked for at once, and what may succeed later is asked
again when the server says. Errors are those of `serving.errors`.
"""

from __future__ import annotations

from serving.client.asynchronous import AsyncClient, Wanted
from serving.client.blocking import Client
from serving.client.results import Chosen, Classified, Embedded, Model, Ranked
from serving.client.retrying import Retries
from serving.client.splitting import Bounds

__all__ = [
    "AsyncClient",
    "Bounds",
    "Chosen",
    "Classified",
    "Client",
    "Embedded",
    "Model",
    "Ranked",
    "Retries",
    "Wanted",
]
