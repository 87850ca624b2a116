"""Pipelines that generate pictures: Stable Diffusion and its kin."""
