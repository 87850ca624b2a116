"""What `bench.history` runs in one version of ovjit: prints one JSON object of figures. Imports nothing of
`bench`, and of ovjit only what its first versions had, as it runs beside any commit's package.

    python bench/history_probe.py FOLDER SECONDS

FOLDER has call.onnx and net.onnx with their inputs as .npy. Times are CPU times of one thread in the
process: what else the machine does changes them little.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


def main() -> None:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2])
    import numpy as np

    clock = time.process_time
    began = clock()
    import ovjit

    found: dict[str, Any] = {"import_ms": (clock() - began) * 1e3}
    for name in ("call", "net"):
        x = np.load(folder / f"{name}.npy")
        try:
            began = clock()
            core = ovjit.Core()
            compiled = core.compile_model(core.read_model(str(folder / f"{name}.onnx")), "CPU", CONFIG)
            request = compiled.create_infer_request()
            request.infer([x])
            found[f"{name}_first_ms"] = (clock() - began) * 1e3
            found[f"{name}_us"] = _call(lambda request=request, x=x: request.infer([x]), seconds) * 1e6
        except Exception as error:  # what an older version cannot do is no figure
            found[f"{name}_failed"] = f"{type(error).__name__}: {error}"[:200]
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(json.dumps(found))


def _call(run: Any, seconds: float) -> float:
    """Median CPU time of a call over batches of calls, in seconds."""
    clock = time.process_time
    for _ in range(5):
        run()
    began = clock()
    run()
    count = max(1, int(0.01 / max(clock() - began, 1e-6)))
    times, end = [], clock() + seconds
    while clock() < end or len(times) < 5:
        began = clock()
        for _ in range(count):
            run()
        times.append((clock() - began) / count)
    return statistics.median(times)


if __name__ == "__main__":
    main()
