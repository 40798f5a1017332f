"""Polyvec's product without Ray: from a wire request to vectors inside one process."""

__version__ = "0.1.0"

__all__ = ["__version__"]
