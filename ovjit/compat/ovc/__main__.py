"""`python -m ovjit.tools.ovc`, and so `python -m openvino.tools.ovc`."""

import sys

from ovjit.compat.ovc.main import main

if __name__ == "__main__":
    sys.exit(main())
