"""Inputs and outputs of a graph: parameters, constants, results, variables."""
