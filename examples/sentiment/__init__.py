"""Sentiment of English sentences: a model trained at start, and the HTTP server around it."""
