"""Where a graph begins and ends: parameters, constants, results, variables."""
