"""Videos: which of their frames are read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from ovjit.api.tensors.tensor import Tensor
from ovjit.errors import OvjitError
from ovjit.genai.fields import REAL, Settings, Tokens

#: The frames per second of a video whose rate is not given.
_DEFAULT_RATE = 24.0


class VideoMetadata(Settings):
    """The frames per second of a video (0: unknown), and the numbers of the frames that are read (none:
    the model's choice)."""

    _fields = {"fps": (0.0, REAL), "frames_indices": ([], Tokens())}


def check_video(video: Any) -> np.ndarray:
    """The data of a video: a Tensor u8 [frames, height, width, 3]. TypeError, RuntimeError."""
    if not isinstance(video, Tensor):
        raise TypeError(f"a video should be a Tensor, not {type(video).__name__}")
    data: np.ndarray = video.data
    if data.dtype != np.uint8 or data.ndim != 4 or data.shape[3] != 3 or not data.size:
        raise OvjitError(
            f"a video should be a Tensor of u8 [frames, height, width, 3], not of {data.dtype} "
            f"{list(data.shape)}"
        )
    return data


def find_rate(metadata: VideoMetadata) -> float:
    """The frames per second of a video, with a warning if they are not given. RuntimeError for negative
    ones."""
    if metadata.fps < 0:
        raise OvjitError("Video metadata fps must be non-negative for timestamp calculation.")
    if metadata.fps:
        return float(metadata.fps)
    warnings.warn(
        f"a video without VideoMetadata.fps is taken to have {_DEFAULT_RATE:g} frames per second",
        RuntimeWarning,
        2,
    )
    return _DEFAULT_RATE


def pick_frames(video: np.ndarray, indices: Sequence[int]) -> np.ndarray:
    """The frames with these numbers, all if there are none. RuntimeError for numbers beyond the last."""
    if not len(indices):
        return video
    if len(indices) > len(video):
        raise OvjitError(f"frames_indices has {len(indices)} numbers, and the video {len(video)} frames")
    for index in indices:
        if not 0 <= index < len(video):
            raise OvjitError(f"Frame index {index} out of range [0, {len(video)})")
    return video[list(indices)]
