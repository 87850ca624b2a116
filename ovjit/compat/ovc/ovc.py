"""The command as a file that can be run."""

import sys

if __name__ == "__main__":
    from ovjit.compat.ovc.main import main

    sys.exit(main())
