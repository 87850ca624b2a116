"""ovjit in other projects' servers and clusters. Each module needs its package installed; see docs/serving.md
and docs/distributed.md.
"""
