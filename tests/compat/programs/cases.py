"""The command line of programs that run cases: results by case as a line of JSON."""

import json
import sys
import traceback
from pathlib import Path


def print_results(cases, run):
    """Prints case -> `run(case, folder)`, or its error, of all cases or of those named: FOLDER [case ...]."""
    folder, chosen = Path(sys.argv[1]), sys.argv[2:] or list(cases)
    found = {}
    for name in chosen:
        try:
            found[name] = run(name, folder)
        except Exception as error:
            traceback.print_exc()
            found[name] = {"error": f"{type(error).__name__}: {str(error)[-300:]}"}
        print(name, str(found[name])[:150], file=sys.stderr, flush=True)
    print(json.dumps(found))
