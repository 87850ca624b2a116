"""What tests share: models, oracles, programs that are run in processes of their own."""

from pathlib import Path

#: The folder of the project, with its packages, docs and bench.
ROOT = Path(__file__).resolve().parents[2]
