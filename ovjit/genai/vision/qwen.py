"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: pictures and videos of any size, and positions of three axes."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovjit.errors import OvjitError
from ovjit.genai.config import GenerationConfig
from ovjit.genai.json_files import read_json
from ovjit.genai.tokenizer import Tokenizer
from ovjit.genai.vision.family import Family, Visual
from ovjit.genai.vision.processors import read_processor
from ovjit.genai.vision.pruning import choose_tokens
from ovjit.genai.vision.resizing import resize_cubic
from ovjit.genai.vision.videos import VideoMetadata, find_rate, pick_frames

_F32 = np.float32
#: Frames of a video that one patch covers.
_FRAMES = 2
_START, _END, _IMAGE, _VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
#: The output of Qwen3-VL's merger with features of layers.
_LAYERS = "deepstack_feature_lists"


class Patches(Visual):
    """An encoded picture or video: `grid` counts its frames, rows and columns of tokens `pad`. `layers` f32
    [layers, tokens, size] are added to the first layers of the language model; `times` are seconds."""

    def __init__(self, features: np.ndarray, grid: tuple[int, int, int], pad: str, layers: np.ndarray):
        super().__init__(features)
        self.grid, self.pad, self.layers = grid, pad, layers
        self.times: list[float] = []
        #: The tokens that remain of each run of tokens, None for all.
        self.remaining: list[np.ndarray] | None = None


class Limits:
    """The sizes of a `preprocessor_config.json`: those of patches, and the fewest and most pixels."""

    def __init__(self, config: Mapping[str, Any]):
        size = config.get("size") or {}
        bounds = [config.get("min_pixels"), config.get("max_pixels")]
        if bounds == [None, None]:
            bounds = [size.get("shortest_edge"), size.get("longest_edge")]
        self.patch, self.merge = int(config.get("patch_size", 14)), int(config.get("merge_size", 2))
        self.fewest, self.most = (
            int(default if bound is None else bound)
            for bound, default in zip(bounds, (3136, 12845056), strict=True)
        )
        if config.get("temporal_patch_size", _FRAMES) != _FRAMES:
            raise OvjitError("temporal_patch_size should be 2")

    def choose_size(self, height: int, width: int) -> tuple[int, int]:
        """A multiple of merged patches near the size of a picture, within the limits."""
        if max(height, width) // min(height, width) > 200:
            raise OvjitError("Absolute aspect ratio must be smaller than 200")
        unit = self.patch * self.merge
        sizes = [int(_F32(side) / _F32(unit) + _F32(0.5)) * unit for side in (height, width)]
        if math.prod(sizes) > self.most:
            ratio = math.sqrt(height * width / self.most)
            sizes = [max(math.floor(side / ratio / unit), 1) * unit for side in (height, width)]
        elif math.prod(sizes) < self.fewest:
            ratio = math.sqrt(self.fewest / (height * width))
            sizes = [math.ceil(side * ratio / unit) * unit for side in (height, width)]
        return sizes[0], sizes[1]


def order_patches(rows: int, columns: int, merge: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows and columns of patches in the order of the encoder: those of a merged patch are neighbours."""
    indices = np.indices((rows, columns)).reshape(2, rows // merge, merge, columns // merge, merge)
    return tuple(indices.transpose(0, 1, 3, 2, 4).reshape(2, -1))  # type: ignore[return-value]


class Qwen2VL(Family):
    """Qwen2-VL."""

    native, native_video = _START + _IMAGE + _END, _START + _VIDEO + _END
    networks: ClassVar[tuple[str, ...]] = ("vision_embeddings_merger",)
    channels: ClassVar[tuple[int, ...]] = (1, 3, 4)
    _has_layers = _prunes_videos = False
    #: The network whose results are features.
    _last_network = "vision_embeddings_merger"
    #: The filter that resizes pictures.
    _filter = ("pytorch_half_pixel", -0.75, "cubic")

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        self._limits = Limits(self._processor)
        self._means = (self._mean * _F32(255)).reshape(1, 3, 1, 1)
        self._scales = (_F32(1) / (self._deviation * _F32(255))).reshape(1, 3, 1, 1)
        self._vision = self._read_vision(read_json(folder / "config.json"))
        self._start, self._end = self.token(_START), self.token(_END)
        self._slot_tokens = [self.token(_IMAGE), self.token(_VIDEO)]
        ports = requests[self._last_network].get_compiled_model().inputs
        rotary = next(port for port in ports if "rotary_pos_emb" in port.get_names())
        self._half = rotary.partial_shape[1].get_length() // 2

    def _read_vision(self, settings: dict[str, Any]) -> dict[str, Any]:
        """The settings of the vision encoder in a config.json."""
        return settings.get("vision_config") or {}

    # -- pictures and videos

    def preprocess(self, frames: np.ndarray, limits: Limits) -> tuple[np.ndarray, int, int]:
        """(the patches f32 [rows * columns, values] of one or two frames u8 [frames, height, width, 3], their
        rows, their columns)."""
        height, width = limits.choose_size(*frames.shape[1:3])
        planes = resize_cubic(frames, height, width, *self._filter)
        np.clip(planes, 0, 255, out=planes)
        planes -= self._means
        planes *= self._scales
        patch, merge = limits.patch, limits.merge
        rows, columns = height // patch, width // patch
        planes = np.broadcast_to(planes, (_FRAMES, *planes.shape[1:]))
        tiles = planes.reshape(
            _FRAMES, 3, rows // merge, merge, patch, columns // merge, merge, patch
        ).transpose(2, 5, 3, 6, 1, 0, 4, 7)
        return np.ascontiguousarray(tiles).reshape(rows * columns, -1), rows, columns

    def encode(self, image: np.ndarray) -> Patches:
        if image.shape[3] == 1:
            image = np.repeat(image, 3, axis=3)
        return self._encode(np.ascontiguousarray(image[..., :3]), self._limits, _IMAGE)

    def encode_video(self, frames: np.ndarray, metadata: VideoMetadata) -> Patches:
        return self._encode(pick_frames(frames, metadata.frames_indices), self._limits, _VIDEO)

    def _encode(self, frames: np.ndarray, limits: Limits, pad: str) -> Patches:
        """Frames u8 [frames, height, width, 3]. Pairs are encoded apart: no patch sees another pair's."""
        features, layers, no_layers = [], [], np.zeros((0, 0, 0), _F32)
        for i in range(0, len(frames), _FRAMES):
            patches, rows, columns = self.preprocess(frames[i : i + _FRAMES], limits)
            results = self._encode_patches(patches, rows, columns)
            features.append(np.array(results["last_hidden_state"], _F32))
            layers.append(np.array(results[_LAYERS], _F32) if self._has_layers else no_layers)
        grid = (len(features), rows // limits.merge, columns // limits.merge)
        return Patches(np.concatenate(features), grid, pad, np.concatenate(layers, 1))

    def _encode_patches(self, patches: np.ndarray, rows: int, columns: int) -> Any:
        """The results of the last network for patches f32 [rows * columns, values]."""
        hidden = self._embed_patches(patches, rows, columns)
        return self._requests[self._last_network].infer(self._feed(hidden, rows, columns))

    def _embed_patches(self, patches: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """The embeddings f32 [rows * columns, size] of patches."""
        return np.asarray(self._requests["vision_embeddings"].infer([patches])[0])

    def _feed(self, hidden: np.ndarray, rows: int, columns: int) -> dict[str, np.ndarray]:
        """The inputs of the merger, for patches f32 [rows * columns, size]."""
        axes = order_patches(rows, columns, self._limits.merge)
        steps = np.arange(self._half, dtype=_F32) / _F32(self._half)
        frequencies = _F32(1) / _F32(10000) ** steps
        angles = [numbers.astype(_F32)[:, None] * frequencies for numbers in axes]
        return {
            "hidden_states": hidden,
            # each patch sees all others
            "attention_mask": np.zeros((1, 1, 1), _F32),
            "rotary_pos_emb": np.concatenate(angles, 1),
        }

    # -- prompts

    def write(self, visual: Patches) -> str:
        return _START + visual.pad * len(visual.features) + _END

    def tokenize(self, text: str, special: bool, visuals: Sequence[Patches]) -> np.ndarray:
        """The token ids of a prompt. RuntimeError if the number of image tokens differs from that of the
        features."""
        ids = super().tokenize(text, special, visuals)
        pads, count = int(self.find_slots(ids).sum()), sum(len(visual.features) for visual in visuals)
        if visuals and pads != count:
            raise OvjitError(
                f"the prompt has {pads} tokens for {count} features of pictures: a tag of the model is in "
                "the text, or the tokenizer cuts it"
            )
        return ids

    def prune(
        self, ids: np.ndarray, embeds: np.ndarray, visuals: list[Patches], config: GenerationConfig
    ) -> tuple[np.ndarray, np.ndarray, list[Patches]]:
        if not self._prunes_videos and any(visual.pad == _VIDEO for visual in visuals):
            raise OvjitError(f"video pruning is not supported for {type(self).__name__}: set pruning_ratio=0")
        if not visuals or config.pruning_ratio == 100:
            return ids, embeds, visuals
        tokens, slots, keep = ids[0], self.find_slots(ids), np.ones(ids.shape[1], bool)
        ends = tokens == self._end
        words = embeds[0][~(slots | ends | (np.cumsum(tokens == self._start) > np.cumsum(ends)))]
        text = words.sum(0) / np.float32(max(len(words), 1))
        pruned = [self._prune_visual(visual, text, config) for visual in visuals]
        keep[slots] = np.concatenate([flags for _, flags in pruned])
        return ids[:, keep], embeds[:, keep], [visual for visual, _ in pruned]

    def _prune_visual(
        self, visual: Patches, text: np.ndarray, config: GenerationConfig
    ) -> tuple[Patches, np.ndarray]:
        """(a copy with fewer features, the flags of those that remain)."""
        runs = np.cumsum([math.prod(grid) for grid in self._find_grids(visual)])[:-1]
        remaining = [
            choose_tokens(part, text, config.pruning_ratio, config.relevance_weight)
            for part in np.split(visual.features, runs)
        ]
        numbers = np.concatenate([part + begin for part, begin in zip(remaining, [0, *runs], strict=True)])
        pruned = copy.copy(visual)
        pruned.remaining, pruned.features = remaining, visual.features[numbers]
        pruned.layers = visual.layers[:, numbers] if visual.layers.size else visual.layers
        return pruned, np.isin(np.arange(len(visual.features)), numbers)

    def _find_grids(self, visual: Patches) -> list[tuple[int, int, int]]:
        """The grids of a picture or video, one for each of its runs of tokens."""
        return [visual.grid]

    def positions(self, ids: np.ndarray, visuals: Sequence[Patches]) -> np.ndarray:
        """i64 [3, 1, tokens]: frames, rows and columns. In texts they are equal. A picture counts as many
        positions as its longest axis."""
        count, tokens = ids.shape[1], ids[0]
        begins = np.flatnonzero((tokens[:-1] == self._start) & np.isin(tokens[1:], self._slot_tokens)) + 1
        grids = [
            (grid, slice(None) if visual.remaining is None else visual.remaining[i])
            for visual in visuals
            for i, grid in enumerate(self._find_grids(visual))
        ]
        pace = int(self._vision.get("tokens_per_second", 2))
        positions, end, position = np.empty((3, count), np.int64), 0, self._first
        for begin, (grid, columns) in zip(begins, grids, strict=False):
            positions[:, end:begin] = np.arange(position, position + begin - end)
            position += int(begin) - end
            axes = (np.indices(grid).reshape(3, -1) * np.array([[pace], [1], [1]]) + position)[:, columns]
            end = min(int(begin) + axes.shape[1], count)
            positions[:, begin:end] = axes[:, : end - begin]
            position = int(axes.max()) + 1
        positions[:, end:] = np.arange(position, position + count - end)
        return positions[:, None]


class Qwen25VL(Qwen2VL):
    """Qwen2.5-VL: patches see those of their window only, in most layers of the encoder."""

    def _feed(self, hidden: np.ndarray, rows: int, columns: int) -> dict[str, np.ndarray]:
        merge = self._limits.merge
        side = int(self._vision.get("window_size", 112)) // merge // int(self._vision.get("patch_size", 14))
        row, column = np.indices((rows // merge, columns // merge)).reshape(2, -1) // side
        windows = row * columns + column
        order = np.argsort(windows, kind="stable")
        mask = np.full((1, rows * columns, rows * columns), -np.inf, _F32)
        ends = np.cumsum(np.unique(windows, return_counts=True)[1]) * (merge * merge)
        for begin, end in itertools.pairwise([0, *ends]):
            mask[0, begin:end, begin:end] = 0
        return {**super()._feed(hidden, rows, columns), "window_attention_mask": mask, "window_index": order}


class Qwen3VL(Qwen2VL):
    """Qwen3-VL: learned positions of patches, features for several layers, and videos with times."""

    networks: ClassVar[tuple[str, ...]] = ("vision_embeddings_merger", "vision_embeddings_pos")
    _has_layers = _prunes_videos = True

    def __init__(self, folder: Path, requests: Mapping[str, Any], tokenizer: Tokenizer):
        super().__init__(folder, requests, tokenizer)
        self._video = read_processor(folder, "video")
        self._video_limits = Limits(self._video)
        self._side = math.isqrt(int(self._vision.get("num_position_embeddings", 2304)))
        self._layers = len(self._vision.get("deepstack_visual_indexes", ()))

    def _embed_patches(self, patches: np.ndarray, rows: int, columns: int) -> np.ndarray:
        return super()._embed_patches(patches, rows, columns) + self._embed_positions(rows, columns)

    def _embed_positions(self, rows: int, columns: int) -> np.ndarray:
        """The embeddings f32 [rows * columns, size] of the positions of patches."""
        last, indices, weights = self._side - 1, [], []
        for numbers, count in zip(
            order_patches(rows, columns, self._limits.merge), (rows, columns), strict=True
        ):
            scale = _F32(last) / _F32(count - 1) if count > 1 else _F32(0)
            exact = numbers.astype(_F32) * scale
            low = exact.astype(np.int64)
            share = exact - low.astype(_F32)
            indices.append((low, np.minimum(low + 1, last)))
            weights.append((_F32(1) - share, share))
        corners = [row * self._side + column for row in indices[0] for column in indices[1]]
        embeds = np.asarray(self._requests["vision_embeddings_pos"].infer([np.stack(corners)])[0])
        shares = [row * column for row in weights[0] for column in weights[1]]
        return sum(
            (embed * share[:, None] for embed, share in zip(embeds[1:], shares[1:], strict=True)),
            start=embeds[0] * shares[0][:, None],
        )

    def encode_video(self, frames: np.ndarray, metadata: VideoMetadata) -> Patches:
        indices, fps = self._choose_frames(len(frames), metadata)
        visual = self._encode(pick_frames(frames, indices), self._video_limits, _VIDEO)
        indices += indices[-1:] * (len(indices) % _FRAMES)
        visual.times = [
            float(_F32(first + second) / _F32(2) / _F32(fps))
            for first, second in zip(indices[::2], indices[1::2], strict=True)
        ]
        return visual

    def _choose_frames(self, count: int, metadata: VideoMetadata) -> tuple[list[int], float]:
        """(the numbers of the frames that are read, the frames per second)."""
        fps, config = find_rate(metadata), self._video
        if metadata.frames_indices:
            return list(metadata.frames_indices), fps
        rate, chosen = float(config.get("fps") or 0), int(config.get("num_frames") or 0)
        if rate and chosen:
            raise OvjitError("num_frames and fps are mutually exclusive video config arguments.")
        if not config.get("do_sample_frames"):
            return list(range(count)), fps
        fewest, most = int(config.get("min_frames") or 0), int(config.get("max_frames") or 0)
        if rate:
            chosen = min(max(int(count / fps * rate), fewest), min(most, count))
        elif not chosen:
            chosen = min(max(count, fewest), most)
        if not 1 < chosen <= count:
            raise OvjitError(f"Invalid number of frames ({chosen}) for video sampling.")
        return [int(i * (count - 1) / (chosen - 1) + 0.5) for i in range(chosen)], fps

    def write(self, visual: Patches) -> str:
        if not visual.times:
            return super().write(visual)
        pads = _START + visual.pad * math.prod(visual.grid[1:]) + _END
        return "".join(f"<{time:.1f} seconds>{pads}" for time in visual.times)

    def _find_grids(self, visual: Patches) -> list[tuple[int, int, int]]:
        return [(1, *visual.grid[1:])] * visual.grid[0]

    def inputs(self, ids: np.ndarray, slots: np.ndarray, visuals: Sequence[Patches]) -> dict[str, np.ndarray]:
        is_visual = np.zeros(ids.shape, bool)
        if not visuals:
            size = self._requests[self._last_network].get_compiled_model().output("last_hidden_state")
            layers = np.zeros((self._layers, ids.size, size.partial_shape[1].get_length()), _F32)
        else:
            is_visual[0, slots] = True
            layers = np.concatenate([visual.layers for visual in visuals], 1)
        return {"visual_pos_masks": is_visual, "deepstack_visual_embeds": layers}


class Qwen35(Qwen3VL):
    """Qwen3.5: no features for further layers, and a first axis of positions that numbers the tokens."""

    _has_layers = False
    _text_axes = 1

    def positions(self, ids: np.ndarray, visuals: Sequence[Patches]) -> np.ndarray:
        axes = super().positions(ids, visuals)
        return np.concatenate([np.arange(ids.shape[1])[None, None], axes])

    def inputs(self, ids: np.ndarray, slots: np.ndarray, visuals: Sequence[Patches]) -> dict[str, np.ndarray]:
        return {}
