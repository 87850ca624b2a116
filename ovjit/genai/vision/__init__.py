"""Pipelines that answer questions about pictures."""
