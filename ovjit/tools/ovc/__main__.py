"""`python -m openvino.tools.ovc`."""

import sys

from ovjit.tools.ovc.main import main

sys.exit(main())
