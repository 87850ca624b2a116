"""ovjit in servers and clusters that others built. Each module needs its package installed; see
docs/serving.md and docs/distributed.md."""
