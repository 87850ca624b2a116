"""Programs of other packages that call onnxruntime, with the models in their wheels.

    python for_onnxruntime.py NAME

Prints a JSON list: what the program answers, and the CPU seconds of its calls after the first one.
"""

# ruff: noqa: E501
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

TEXTS = ["Hello World 2026", "The quick brown fox", "0123456789 ABC"]
CONTENTS = {
    "python": b"import os\n\n\ndef main():\n    print(os.getcwd())\n\n\nif __name__ == '__main__':\n    main()\n" * 3,
    "json": b'{"a": [1, 2, 3], "b": {"c": null, "d": "text"}, "e": true}\n' * 4,
    "html": b"<!doctype html><html><head><title>x</title></head><body><p>text</p></body></html>\n" * 4,
    "png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x10\x00\x00\x00\x10\x08\x06\x00\x00\x00" + bytes(range(256)) * 3,
    "random": np.random.default_rng(0).bytes(5000),
}  # fmt: skip


def draw_texts() -> np.ndarray:
    import cv2

    image = np.full((220, 640, 3), 255, np.uint8)
    for i, text in enumerate(TEXTS):
        cv2.putText(image, text, (20, 50 + 55 * i), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 2)
    return image


def make_sound(rate: int, seconds: float) -> np.ndarray:
    """A tone that swells four times a second, with noise; its first third is quiet."""
    at = np.arange(int(rate * seconds)) / rate
    noise = 0.05 * np.random.default_rng(0).standard_normal(len(at))
    sound = (0.3 * np.sin(2 * np.pi * 220 * at) * (1 + np.sin(2 * np.pi * 4 * at)) + noise).astype(np.float32)
    sound[: len(sound) // 3] *= 0.01
    return sound


def magika() -> Callable[[], Any]:
    from magika import Magika

    detector = Magika()

    def answer() -> Any:
        results = {name: detector.identify_bytes(content) for name, content in CONTENTS.items()}
        return {name: [str(r.output.label), round(float(r.score), 4)] for name, r in results.items()}

    return answer


def rapidocr_onnxruntime() -> Callable[[], Any]:
    from rapidocr_onnxruntime import RapidOCR

    engine, image = RapidOCR(), draw_texts()
    return lambda: [[text, round(float(score), 3)] for _, text, score in engine(image)[0]]


def rapidocr() -> Callable[[], Any]:
    from rapidocr import RapidOCR

    engine, image = RapidOCR(), draw_texts()

    def answer() -> Any:
        results = engine(image)
        return [[t, round(float(s), 3)] for t, s in zip(results.txts, results.scores, strict=True)]

    return answer


def silero_vad() -> Callable[[], Any]:
    import torch
    from silero_vad import get_speech_timestamps, load_silero_vad

    model, sound = load_silero_vad(onnx=True), torch.from_numpy(make_sound(16000, 3))

    def answer() -> Any:
        model.reset_states()
        probabilities = [float(model(sound[i : i + 512], 16000)) for i in range(0, len(sound) - 512, 512)]
        return [get_speech_timestamps(sound, model), [round(p, 3) for p in probabilities]]

    return answer


def basic_pitch() -> Callable[[], Any]:
    import tempfile
    import wave

    import basic_pitch
    from basic_pitch.inference import Model, predict

    folder = Path(basic_pitch.__file__).parent / "saved_models" / "icassp_2022"
    model, path = Model(folder / "nmp.onnx"), Path(tempfile.mkdtemp()) / "sound.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(22050)
        file.writeframes((make_sound(22050, 4) * 20000).astype("<i2").tobytes())

    def answer() -> Any:
        _, _, notes = predict(path, model)
        return [[round(float(a), 2), round(float(b), 2), int(pitch)] for a, b, pitch, *_ in sorted(notes)]

    return answer


def nudenet() -> Callable[[], Any]:
    import cv2
    from nudenet import NudeDetector

    detector = NudeDetector()
    rng = np.random.default_rng(0)
    blobs = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3)).astype(np.uint8), (0, 0), 25)
    image = cv2.normalize(blobs, None, 0, 255, cv2.NORM_MINMAX)

    def answer() -> Any:
        # no such picture: the raw scores of the network are compared, too
        pixels = cv2.dnn.blobFromImage(image, 1 / 255, (320, 320), swapRB=True)
        (scores,) = detector.onnx_session.run(None, {detector.input_name: pixels})
        return [detector.detect(image), [round(float(v), 3) for v in scores[0].max(1)]]

    return answer


def piper() -> Callable[[], Any]:
    from piper.hebrew import NakdimonDiacritizer
    from piper.tashkeel import TashkeelDiacritizer

    arabic, hebrew = TashkeelDiacritizer(), NakdimonDiacritizer()
    texts = ["السلام عليكم ورحمة الله", "ذهب الولد إلى المدرسة"], ["שלום עולם", "הילד הלך לבית הספר"]
    return lambda: [[arabic(text) for text in texts[0]], [hebrew(text) for text in texts[1]]]


def onnx_asr() -> Callable[[], Any]:
    """Features of sounds of twenty lengths: every call has a shape of its own."""
    from onnx_asr.preprocessors.preprocessor import OnnxPreprocessor

    kinds = [
        OnnxPreprocessor(name, {}) for name in ("kaldi", "nemo128", "gigaam_v3", "wespeaker", "whisper80")
    ]
    sounds = [make_sound(16000, 1 + k / 40)[None] for k in range(20)]

    def answer() -> Any:
        found = []
        for kind in kinds:
            for sound in sounds:
                features, lengths = kind(sound, np.array([sound.shape[1]]))
                levels = features.reshape(-1)[::997].astype(float)
                found.append([list(features.shape), lengths.tolist(), [round(v, 3) for v in levels.tolist()]])
        return found

    return answer


if __name__ == "__main__":
    run = globals()[sys.argv[1]]()
    answer = run()
    begin = time.process_time()
    for _ in range(3):
        run()
    used = time.process_time() - begin
    onnxruntime = sys.modules["onnxruntime"]
    assert ("ovjit" in onnxruntime.__file__) is ("ovjit.as_onnxruntime" in sys.modules)
    print(json.dumps([answer, used / 3]))
