"""The wire over HTTP: dialects, one error body, documents. Knows the service, not its server."""
