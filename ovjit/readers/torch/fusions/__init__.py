"""Rewrites of a converted graph to the operations that OpenVINO's `convert_model` makes."""
