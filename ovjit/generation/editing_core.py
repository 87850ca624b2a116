"""Compiles files whose models are changed first, and keeps them compiled as those of other files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ovjit.api.run.core import Core


class EditingCore(Core):
    """A Core that calls `edit(model)` for each model before it compiles it. `edit` is not called for a model
    that was kept with the same `name`. It returns False for a model that is not to be kept."""

    def __init__(self, edit: Callable[[Any], bool], name: str):
        super().__init__()
        self._edit, self._name = edit, name

    def _read(self, model: Any, weights: Any, use_mmap: bool) -> Any:
        read = super()._read(model, weights, use_mmap)
        read._of_one_file &= self._edit(read)
        return read

    def _config_for(self, device: str, config: Any) -> dict[str, Any]:
        settings = super()._config_for(device, config)
        # names of kept models and cached files derive from the properties that the user has set
        return {**settings, "given": {**settings["given"], "EDITED_BY": self._name}}
