"""Request bodies by title, as the documents show them; each of them is answered in a test."""

from __future__ import annotations

__all__ = ["EXAMPLES"]

EXAMPLES: dict[str, dict[str, object]] = {
    "OpenAI": {
        "model": "all-MiniLM-L6-v2",
        "input": ["The food was delicious.", "The waiter was kind."],
        "encoding_format": "float",
    },
    "Jina": {
        "model": "all-MiniLM-L6-v2",
        "input": [{"text": "Organic skincare for sensitive skin"}],
        "embedding_type": "base64",
        "normalized": True,
        "truncate": True,
    },
    "Image": {
        "model": "jina-embeddings-v4",
        "input": [{"image": "https://example.com/chart.png"}, {"text": "A chart of sales"}],
    },
    "Multi-vectors": {
        "model": "jina-embeddings-v4",
        "input": "A chart of sales",
        "return_multivector": True,
    },
    "One text": {"model": "all-MiniLM-L6-v2", "input": "Hello"},
    "Several types": {
        "model": "all-MiniLM-L6-v2",
        "input": "Hello",
        "embedding_type": ["float", "ubinary"],
    },
}
