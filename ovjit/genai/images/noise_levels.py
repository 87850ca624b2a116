"""scheduler_config.json, and the noise levels and times that schedulers compute from it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.json_files import read_json

_F32 = np.float32
#: The texts that a field of scheduler_config.json may have.
_CHOICES = {
    "beta_schedule": ("linear", "scaled_linear", "squaredcos_cap_v2"),
    "prediction_type": ("epsilon", "sample", "v_prediction"),
    "timestep_spacing": ("linspace", "trailing", "leading"),
    "interpolation_type": ("linear", "log_linear"),
    "final_sigmas_type": ("zero", "sigma_min"),
    "timestep_type": ("discrete", "continuous"),
    "time_shift_type": ("linear", "exponential"),
}


def read_fields(path: Any, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a JSON file that are in `defaults`, in the defaults' types; None keeps a default.
    RuntimeError for an unknown choice or a value of another type."""
    content, fields = read_json(path), dict(defaults)
    for name, default in defaults.items():
        value = content.get(name)
        if value is None or value == "" or isinstance(value, list) != isinstance(default, list):
            continue
        if name in _CHOICES and isinstance(value, str) and value not in _CHOICES[name]:
            raise OvjitError(f"Unsupported value for '{name}' {value}: it should be one of {_CHOICES[name]}")
        try:
            fields[name] = value if default is None else type(default)(value)
        except (TypeError, ValueError) as error:
            raise OvjitError(f"{name} in {os.fsdecode(path)}: {error}") from error
    return fields


def refuse_flags(config: Mapping[str, Any], *names: str) -> None:
    """UnsupportedError if a flag of the configuration is set."""
    for name in names:
        if config.get(name):
            raise UnsupportedError(
                f"Parameter '{name}' is not supported: set it to false in scheduler_config.json"
            )


def space_evenly(start: float, end: float, count: int, with_end: bool = False) -> np.ndarray:
    """Numbers f32 [count] from start to end, computed in f32 as start + step * i. `with_end`: the last one is
    the end."""
    if count == 1:
        return np.array([start], _F32)
    step = (_F32(end) - _F32(start)) / _F32(max(count - with_end, 1))
    numbers = _F32(start) + step * np.arange(count, dtype=_F32)
    if with_end and count:
        numbers[-1] = end
    return numbers


def compute_alphas(config: Mapping[str, Any], with_end: bool = False) -> np.ndarray:
    """The cumulative products f32 [num_train_timesteps] of 1 - beta: the share of the picture at each
    time."""
    count, start, end = (config[name] for name in ("num_train_timesteps", "beta_start", "beta_end"))
    if config["trained_betas"]:
        betas = np.array(config["trained_betas"], _F32)
    elif config["beta_schedule"] == "linear":
        betas = space_evenly(start, end, count, with_end)
    elif config["beta_schedule"] == "scaled_linear":
        betas = space_evenly(np.sqrt(_F32(start)), np.sqrt(_F32(end)), count, with_end) ** 2
    else:
        raise UnsupportedError("'beta_schedule' must be one of 'LINEAR' or 'SCALED_LINEAR'")
    if config.get("rescale_betas_zero_snr"):
        betas = _rescale(betas)
    return np.multiply.accumulate(_F32(1) - betas)


def _rescale(betas: np.ndarray) -> np.ndarray:
    """Rescale betas so that the last time is pure noise (arXiv 2305.08891, algorithm 1)."""
    roots = np.sqrt(np.multiply.accumulate(_F32(1) - betas))
    products = ((roots - roots[-1]) * (roots[0] / (roots[0] - roots[-1]))) ** 2
    alphas = products.copy()
    alphas[1:] = products[1:] / products[:-1]
    return _F32(1) - alphas


def _round(numbers: np.ndarray) -> np.ndarray:
    """Round to whole numbers, halves up."""
    return np.floor(numbers.astype(np.float64) + 0.5).astype(np.int64)


def choose_times(config: Mapping[str, Any], steps: int) -> np.ndarray:
    """The times i64 of the steps, the noisiest first, by `timestep_spacing`."""
    count = config["num_train_timesteps"]
    if steps < 1:
        raise OvjitError("`num_inference_steps` must be greater than 0")
    if config["timestep_spacing"] == "linspace":
        return _round(space_evenly(0, count - 1, steps, True))[::-1]
    if config["timestep_spacing"] == "leading":
        return np.arange(steps)[::-1] * (count // steps) + config["steps_offset"]
    # in f32 the sum may miss zero, which gives one step more
    step, time, times = _F32(count) / _F32(steps), _F32(count), []
    while time > 0:
        times.append(time)
        time -= step
    return _round(np.array(times)) - 1


def count_skipped(steps: int, strength: float) -> int:
    """The number of the first steps that a picture of this strength leaves out."""
    return steps - min(int(_F32(steps) * _F32(strength)), steps)


def check_times(times: np.ndarray, strength: float) -> None:
    """RuntimeError if no step is left for a picture of this strength."""
    if not len(times):
        raise OvjitError(
            f"After adjusting the num_inference_steps by strength parameter: {strength:g} the number of "
            "pipeline steps is less then 1: use a larger strength"
        )
