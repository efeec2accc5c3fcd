"""A self-hosted queue in front of any HTTP API: one engine, one store, several wire dialects."""

__version__ = "0.1.0"
