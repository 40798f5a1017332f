"""Logs of the service: structured, without inputs."""
