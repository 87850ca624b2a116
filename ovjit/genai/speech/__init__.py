"""Pipelines that speak."""
