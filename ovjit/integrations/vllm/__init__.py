"""A platform of vLLM: vLLM's scheduler, sampling and server, with decoders that ovjit computes.

vLLM finds `platform` by the entry point group `vllm.platform_plugins`, and calls it in every process. Without
the environment variable OVJIT_VLLM it returns None, so an installed ovjit does not change vLLM. See
docs/serving.md.
"""

from __future__ import annotations

import os

#: The environment variable that chooses this platform.
CHOSEN = "OVJIT_VLLM"


def platform() -> str | None:
    """The platform's class, by name, if OVJIT_VLLM is 1 (true, yes or on); None if it is unset or 0 (false,
    no, off or empty). ValueError for anything else."""
    setting = os.environ.get(CHOSEN, "").strip().lower()
    if setting in ("", "0", "false", "no", "off"):
        return None
    if setting not in ("1", "true", "yes", "on"):
        raise ValueError(f"{CHOSEN} should be 1 or 0, not {setting!r}")
    return "ovjit.integrations.vllm.platform.OvjitPlatform"
