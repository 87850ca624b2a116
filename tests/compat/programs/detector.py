"""ultralytics, as its documentation uses it: networks with random weights are exported, in f32 and in int8,
and find things on a picture. Prints a line of JSON: case -> rows of boxes, or of classes.

    python detector.py FOLDER [network ...]
"""

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
os.chdir(folder)
os.environ["YOLO_CONFIG_DIR"] = str(folder)
os.environ["YOLO_AUTOINSTALL"] = "false"

import torch  # noqa: E402
from ultralytics import YOLO, settings  # noqa: E402

settings.update({"sync": False, "datasets_dir": str(folder), "runs_dir": str(folder)})
NETWORKS = ["yolo11n.yaml", "yolov8n-seg.yaml", "yolo11n-cls.yaml", "yolov8n-pose.yaml", "yolo11n-obb.yaml"]


def pictures() -> str:
    """A data set of eight pictures and its description, for calibration."""
    rng = np.random.default_rng(3)
    for name in ("images", "labels"):
        Path(folder, name).mkdir(exist_ok=True)
    for i in range(8):
        rough = Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8))
        rough.resize((96, 96), Image.BICUBIC).save(folder / "images" / f"{i}.png")
        (folder / "labels" / f"{i}.txt").write_text("0 0.5 0.5 0.4 0.4\n")
    names = ", ".join(f"{i}: c{i}" for i in range(80))
    Path("data.yaml").write_text(f"path: {folder}\ntrain: images\nval: images\nnames: {{{names}}}\n")
    return str(folder / "data.yaml")


def rows(result: object) -> list[list[float]]:
    """Boxes of the best scores, or the probabilities of a picture's classes."""
    for kind in ("probs", "obb", "boxes"):
        found = getattr(result, kind, None)
        if found is not None:
            return np.atleast_2d(found.data.double().numpy()).round(6).tolist()[:20]
    return []


def main() -> None:
    out, data = {}, pictures()
    for name in sys.argv[2:] or NETWORKS:
        for low in (False, True):
            if low and name != NETWORKS[0]:
                continue
            torch.manual_seed(5)
            model = YOLO(name)
            options = {"int8": True, "data": data} if low else {}
            path = model.export(format="openvino", imgsz=96, **options)
            exported, picture = YOLO(path, task=model.task), str(folder / "images" / "1.png")
            told = exported(picture, imgsz=96, conf=1e-6, verbose=False)
            out[f"{name} int8" if low else name] = rows(told[0])
    print(json.dumps(out))


main()
