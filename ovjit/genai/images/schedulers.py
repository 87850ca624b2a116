"""Schedulers: how much noise a step takes away."""

from __future__ import annotations

from typing import Any

import numpy as np

from ovjit.errors import OvjitError, UnsupportedError
from ovjit.genai.enums import Arithmetic
from ovjit.genai.images.generators import draw_noise
from ovjit.genai.images.noise_levels import (
    check_times,
    choose_times,
    compute_alphas,
    count_skipped,
    read_fields,
    refuse_flags,
    space_evenly,
)
from ovjit.genai.json_files import read_json

_F32 = np.float32
#: The next latent, and the latent without noise or None.
Step = tuple[np.ndarray, np.ndarray | None]
_COMMON = {
    "num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "scaled_linear",
    "trained_betas": [], "steps_offset": 0, "prediction_type": "epsilon", "timestep_spacing": "leading",
}  # fmt: skip


class _Type(Arithmetic):
    """The kinds of schedulers; AUTO is that of scheduler_config.json."""

    AUTO, LCM, DDIM, EULER_DISCRETE, FLOW_MATCH_EULER_DISCRETE, PNDM, EULER_ANCESTRAL_DISCRETE = range(7)
    LMS_DISCRETE = DDIM


_Type.__name__, _Type.__qualname__ = "Type", "Scheduler.Type"


class Scheduler:
    """The schedule of a picture's steps: Scheduler.from_config(path of scheduler_config.json, type)."""

    Type = _Type
    _defaults: dict[str, Any] = {}

    @staticmethod
    def from_config(scheduler_config_path: Any, scheduler_type: _Type = _Type.AUTO) -> Scheduler:
        """The scheduler of a file, of the type that it names or of another. RuntimeError for unknown ones."""
        if not isinstance(scheduler_type, _Type):
            raise TypeError(f"scheduler_type should be a Scheduler.Type, not {type(scheduler_type).__name__}")
        name: Any = scheduler_type.name
        kind = _SCHEDULERS.get(scheduler_type)
        if scheduler_type is _Type.AUTO:
            name = read_json(scheduler_config_path).get("_class_name")
            kind = _NAMES.get(name) if isinstance(name, str) else None
        if kind is None:
            raise UnsupportedError(
                f"Unsupported value for 'scheduler' {name}: '_class_name' in {scheduler_config_path}, or "
                f"scheduler_type, should be one of {sorted(_NAMES)}"
            )
        return kind(read_fields(scheduler_config_path, kind._defaults))

    #: The factor of the noise that a picture begins with.
    init_noise_sigma = 1.0

    def __init__(self, config: dict[str, Any]):
        if type(self) is Scheduler:
            raise TypeError("Scheduler: No constructor defined: use Scheduler.from_config")
        self.config, self._steps = config, 0
        self.times: np.ndarray = np.zeros(0, np.int64)

    def set_timesteps(self, steps: int, strength: float) -> None:
        """Choose `times` i64 of the steps; a strength below 1 leaves out the first."""
        raise NotImplementedError

    def step(self, noise: np.ndarray, latent: np.ndarray, index: int, generator: Any) -> Step:
        """(the next latent, the latent without noise if the scheduler computes one) in f32."""
        raise NotImplementedError

    def scale_model_input(self, latent: np.ndarray, index: int) -> np.ndarray:
        """The latent as the network takes it."""
        return latent

    def add_noise(self, latent: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        """Mix noise into a latent without noise, to the level of step `index`."""
        raise NotImplementedError


class _AlphaScheduler(Scheduler):
    """A scheduler by the share alpha of the picture in the noisy latent: `alphas` f32
    [num_train_timesteps]."""

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        self.alphas = compute_alphas(config)

    def set_timesteps(self, steps: int, strength: float) -> None:
        if steps > self.config["num_train_timesteps"]:
            raise OvjitError("`num_inference_steps` cannot be larger than `m_config.num_train_timesteps`")
        self._steps = steps
        self.times = self._order(choose_times(self.config, steps))[count_skipped(steps, strength) :]
        check_times(self.times, strength)

    def _order(self, times: np.ndarray) -> np.ndarray:
        """The times i64 of all steps, from those of the spacing."""
        return times

    def _alpha_product(self, time: int) -> np.float32:
        """The product of the alphas up to a timestep; for a negative one, that of a picture without noise.
        RuntimeError for a timestep after the last."""
        if time < 0:
            return _F32(1) if self.config["set_alpha_to_one"] else self.alphas[0]
        if time >= len(self.alphas):
            raise OvjitError(
                f"the time {time} of a step is not below num_train_timesteps ({len(self.alphas)})"
            )
        value: np.float32 = self.alphas[time]
        return value

    def add_noise(self, latent: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        alpha = self._alpha_product(int(self.times[index]))
        return np.sqrt(alpha) * latent + np.sqrt(1 - alpha) * noise


class _DDIM(_AlphaScheduler):
    """Denoising diffusion implicit models (arXiv 2010.02502), equation 12 without random noise."""

    _defaults = {**_COMMON, "clip_sample": True, "set_alpha_to_one": True, "thresholding": False,
                 "rescale_betas_zero_snr": False}  # fmt: skip

    def step(self, noise: np.ndarray, latent: np.ndarray, index: int, generator: Any) -> Step:
        refuse_flags(self.config, "thresholding", "clip_sample")
        time, kind = int(self.times[index]), self.config["prediction_type"]
        alpha = self._alpha_product(time)
        former = self._alpha_product(time - self.config["num_train_timesteps"] // self._steps)
        share, remainder = np.sqrt(alpha), np.sqrt(1 - alpha)
        if kind == "epsilon":
            picture, direction = (latent - remainder * noise) / share, noise
        elif kind == "sample":
            picture, direction = noise, (latent - share * noise) / remainder
        else:
            picture, direction = share * latent - remainder * noise, share * noise + remainder * latent
        result = np.sqrt(former) * picture + np.sqrt(1 - former) * direction
        return result, None


class _PNDM(_AlphaScheduler):
    """Pseudo numerical methods (arXiv 2202.09778): the linear multistep part, up to order 4."""

    _defaults = {**_COMMON, "beta_schedule": "linear", "set_alpha_to_one": False, "skip_prk_steps": False}
    #: Factors of the last outputs of the network, the newest first, by their number.
    _FACTORS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}

    def set_timesteps(self, steps: int, strength: float) -> None:
        super().set_timesteps(steps, strength)
        #: The last outputs of the network, the newest first, the number of steps, and the first latent.
        self._outputs: list[np.ndarray] = []
        self._count, self._first = 0, np.zeros(0, _F32)

    def _order(self, times: np.ndarray) -> np.ndarray:
        """The times, the second twice."""
        if not self.config["skip_prk_steps"]:
            raise UnsupportedError(
                "'skip_prk_steps=false' case isn't supported: set it in scheduler_config.json"
            )
        return times if len(times) < 2 else np.concatenate((times[:2], times[1:]))

    def step(self, noise: np.ndarray, latent: np.ndarray, index: int, generator: Any) -> Step:
        time, stride = int(self.times[index]), self.config["num_train_timesteps"] // self._steps
        former = time - stride
        if self._count == 1:
            former, time = time, time + stride
            noise, latent = (noise + self._outputs[0]) / 2, self._first
        else:
            self._outputs = [noise, *self._outputs[:3]]
            if self._count == 0:
                self._first = latent
            else:
                factors = self._FACTORS[len(self._outputs)]
                noise = np.tensordot(np.array(factors, _F32), np.stack(self._outputs), 1)
        self._count += 1
        result = self._move(latent, noise, self._alpha_product(time), self._alpha_product(former))
        return result, None

    def _move(
        self, latent: np.ndarray, noise: np.ndarray, alpha: np.float32, former: np.float32
    ) -> np.ndarray:
        """The latent at the time with the alpha `former`, from the latent and the noise at `alpha`: equation
        9."""
        if self.config["prediction_type"] == "v_prediction":
            noise = np.sqrt(alpha) * noise + np.sqrt(1 - alpha) * latent
        elif self.config["prediction_type"] == "sample":
            raise UnsupportedError("Unsupported value for 'PredictionType': PNDM has no 'sample'")
        divisor = alpha * np.sqrt(1 - former) + np.sqrt(alpha * (1 - alpha) * former)
        return np.sqrt(former / alpha) * latent - (former - alpha) * noise / divisor


class _LCM(_AlphaScheduler):
    """Latent consistency models (arXiv 2310.04378): each step gives a picture, and adds noise anew."""

    _defaults = {**_COMMON, "beta_start": 0.00085, "beta_end": 0.012, "original_inference_steps": 50,
                 "clip_sample": False, "clip_sample_range": 1.0, "set_alpha_to_one": True,
                 "thresholding": False, "timestep_scaling": 10.0}  # fmt: skip

    def __init__(self, config: dict[str, Any]):
        Scheduler.__init__(self, config)
        self.alphas = compute_alphas(config, with_end=True)

    def set_timesteps(self, steps: int, strength: float) -> None:
        self._steps = steps
        count = int(_F32(self.config["original_inference_steps"]) * _F32(strength))
        stride = self.config["num_train_timesteps"] // self.config["original_inference_steps"]
        times = np.arange(count, 0, -1) * stride - 1
        self.times = times[space_evenly(0, count, steps).astype(np.int64)] if count and steps else times[:0]
        check_times(self.times, strength)

    def step(self, noise: np.ndarray, latent: np.ndarray, index: int, generator: Any) -> Step:
        refuse_flags(self.config, "thresholding")
        if self.config["prediction_type"] != "epsilon":
            raise UnsupportedError("Unsupported value for 'PredictionType': LCM has 'epsilon' only")
        is_last = index == len(self.times) - 1
        time = int(self.times[index])
        alpha, former = self._alpha_product(time), self._alpha_product(int(self.times[index + (not is_last)]))
        picture = (latent - np.sqrt(1 - alpha) * noise) / np.sqrt(alpha)
        if self.config["clip_sample"]:
            picture = np.clip(picture, -self.config["clip_sample_range"], self.config["clip_sample_range"])
        scaled, deviation = time * self.config["timestep_scaling"], 0.5
        total = scaled**2 + deviation**2
        picture = _F32(scaled / total**0.5) * picture + _F32(deviation**2 / total) * latent
        if is_last:
            return picture, picture
        fresh = draw_noise(generator, latent.shape)
        return np.sqrt(former) * picture + np.sqrt(1 - former) * fresh, picture


class _SigmaScheduler(Scheduler):
    """A scheduler by the standard deviation sigma of the noise that is added to an unscaled picture:
    `_sigmas` f32, one for each step, and the final one."""

    def __init__(self, config: dict[str, Any]):
        super().__init__(config)
        alphas = compute_alphas(config)
        if config["rescale_betas_zero_snr"]:
            alphas[-1] = 2.0**-24
        self._trained = np.sqrt((1 - alphas) / alphas)
        self._sigmas = np.append(self._trained[::-1], _F32(0))

    def set_timesteps(self, steps: int, strength: float) -> None:
        self._steps = steps
        schedule = choose_times(self.config, steps)
        self._sigmas = self._choose_sigmas(schedule)
        self._skipped = count_skipped(steps, strength)
        self.times = schedule[self._skipped :]
        check_times(self.times, strength)

    def _choose_sigmas(self, times: np.ndarray) -> np.ndarray:
        return np.append(self._trained[np.clip(times, 0, len(self._trained) - 1)], _F32(0))

    @property
    def init_noise_sigma(self) -> float:  # type: ignore[override]
        largest = float(self._sigmas.max())
        return largest if self.config["timestep_spacing"] != "leading" else (largest**2 + 1) ** 0.5

    def _sigma(self, index: int) -> np.float32:
        value: np.float32 = self._sigmas[self._skipped + index]
        return value

    def scale_model_input(self, latent: np.ndarray, index: int) -> np.ndarray:
        return latent / np.sqrt(self._sigma(index) ** 2 + 1)

    def add_noise(self, latent: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        return latent + self._sigma(index) * noise

    def _predict(self, noise: np.ndarray, latent: np.ndarray, sigma: np.float32) -> np.ndarray:
        """The picture without noise."""
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return latent - sigma * noise
        if kind == "sample":
            return noise
        return noise * (-sigma / np.sqrt(sigma**2 + 1)) + latent / (sigma**2 + 1)


class _Euler(_SigmaScheduler):
    """Euler's method (arXiv 2206.00364, algorithm 2)."""

    _defaults = {**_COMMON, "final_sigmas_type": "zero", "interpolation_type": "linear",
                 "timestep_type": "discrete", "rescale_betas_zero_snr": False, "use_karras_sigmas": False,
                 "use_exponential_sigmas": False, "use_beta_sigmas": False}  # fmt: skip

    def __init__(self, config: dict[str, Any]):
        if config["timestep_type"] == "continuous" and config["prediction_type"] == "v_prediction":
            raise UnsupportedError(
                "`timestep_type=continuous` and `prediction_type=v_prediction` isn't supported"
            )
        super().__init__(config)

    def _choose_sigmas(self, times: np.ndarray) -> np.ndarray:
        refuse_flags(self.config, "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
        sigmas = super()._choose_sigmas(times)
        if self.config["interpolation_type"] == "log_linear":
            least, largest = np.log(self._trained[[0, -1]])
            sigmas = np.append(np.exp(space_evenly(largest, least, self._steps + 1, True)), _F32(0))
        if self.config["final_sigmas_type"] == "sigma_min":
            sigmas[-1] = self._trained[0]
        return sigmas

    def step(self, noise: np.ndarray, latent: np.ndarray, index: int, generator: Any) -> Step:
        sigma = self._sigma(index)
        picture = self._predict(noise, latent, sigma)
        return (latent - picture) / sigma * (self._sigma(index + 1) - sigma) + latent, picture


class _EulerAncestral(_SigmaScheduler):
    """Euler's method with fresh noise in each step."""

    _defaults = {**_COMMON, "beta_schedule": "linear", "rescale_betas_zero_snr": False}

    def step(self, noise: np.ndarray, latent: np.ndarray, index: int, generator: Any) -> Step:
        if self.config["prediction_type"] == "sample":
            raise UnsupportedError(
                "Unsupported value for 'PredictionType': must be one of `epsilon`, or `v_prediction`"
            )
        sigma, target = self._sigma(index), self._sigma(index + 1)
        picture = self._predict(noise, latent, sigma)
        up = np.sqrt(target**2 * (sigma**2 - target**2) / sigma**2)
        down = np.sqrt(target**2 - up**2)
        fresh = draw_noise(generator, latent.shape)
        return latent + (latent - picture) / sigma * (down - sigma) + fresh * up, picture


class FlowMatchEuler(Scheduler):
    """Euler's method along straight paths from noise to pictures (arXiv 2403.03206)."""

    _defaults = {"num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False, "base_shift": 0.5,
                 "max_shift": 1.15, "base_image_seq_len": 256, "max_image_seq_len": 4096,
                 "shift_terminal": None, "time_shift_type": "linear"}  # fmt: skip

    def set_timesteps(
        self, steps: int, strength: float, tokens: int | None = None, shift_type: str | None = None
    ) -> None:
        """Choose `times` f32 of the steps. `tokens`: those of a picture, for schedules that depend on it.
        `shift_type`: the `time_shift_type`, if that of the file does not count."""
        if steps < 1:
            raise OvjitError("`num_inference_steps` must be greater than 0")
        self._steps, limit = steps, self.config["num_train_timesteps"]
        self._shift_type = shift_type or self.config["time_shift_type"]
        if tokens is None:
            refuse_flags(self.config, "use_dynamic_shifting")
            # the least of the shifted levels is shifted again, as in diffusers
            least = float(_F32(self._shift(1 / limit)))
            shares = self._shift(np.linspace(1, least, steps)).astype(_F32)
        else:
            shares = self._choose_shares(np.linspace(1, 1 / steps, steps).astype(_F32), tokens)
        length = _F32(steps)
        skipped = int(length - min(length * _F32(strength), length))
        self.times = (shares * _F32(limit))[skipped:]
        self._sigmas = np.append(shares, _F32(0))[skipped:]
        check_times(self.times, strength)

    def _shift(self, shares: Any) -> Any:
        """Shift shares of noise, so that more steps have much noise."""
        shift = self.config["shift"]
        return shift * shares / (1 + (shift - 1) * shares)

    def _choose_shares(self, shares: np.ndarray, tokens: int) -> np.ndarray:
        """The share of noise of each step in f32, for a picture of so many tokens."""
        if self.config["use_dynamic_shifting"]:
            factor = _F32(np.exp(self._count_shift(tokens)))
            shares = factor / (factor + (1 / shares - 1))
        else:
            shares = self._shift(shares)
        end = self.config["shift_terminal"]
        if end is None:
            return shares
        if abs(1 - end) <= 1e-6:
            raise OvjitError("shift_terminal must not be 1.0 to avoid division by zero")
        remainders: np.ndarray = 1 - shares
        return 1 - remainders / (remainders[-1] / _F32(1 - end))

    def _count_shift(self, tokens: int) -> float:
        """The logarithm of the shift for a picture of so many tokens."""
        config = self.config
        if self._shift_type == "linear":
            least, most = config["base_image_seq_len"], config["max_image_seq_len"]
            slope = (config["max_shift"] - config["base_shift"]) / (most - least)
            return float(config["base_shift"] + slope * (tokens - least))
        # fitted for 200 and for 10 steps, as in the pipelines of Flux 2
        at_200, at_10 = 0.00016927 * tokens + 0.45666666, 8.73809524e-05 * tokens + 1.89833333
        return at_200 if tokens > 4300 else at_200 + (at_200 - at_10) / 190 * (self._steps - 200)

    def step(self, noise: np.ndarray, latent: np.ndarray, index: int, generator: Any) -> Step:
        return latent + (self._sigmas[index + 1] - self._sigmas[index]) * noise, None

    def add_noise(self, latent: np.ndarray, noise: np.ndarray, index: int) -> np.ndarray:
        sigma = self._sigmas[index]
        return sigma * noise + (1 - sigma) * latent


_SCHEDULERS: dict[_Type, type[Scheduler]] = {
    _Type.LCM: _LCM, _Type.DDIM: _DDIM, _Type.EULER_DISCRETE: _Euler, _Type.PNDM: _PNDM,
    _Type.EULER_ANCESTRAL_DISCRETE: _EulerAncestral, _Type.FLOW_MATCH_EULER_DISCRETE: FlowMatchEuler,
}  # fmt: skip
_NAMES: dict[str, type[Scheduler]] = {
    "LCMScheduler": _LCM, "DDIMScheduler": _DDIM, "LMSDiscreteScheduler": _DDIM, "PNDMScheduler": _PNDM,
    "EulerDiscreteScheduler": _Euler, "EulerAncestralDiscreteScheduler": _EulerAncestral,
    "FlowMatchEulerDiscreteScheduler": FlowMatchEuler,
}  # fmt: skip
