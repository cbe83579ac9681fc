"""``python -m olivine`` is the same as the command ``olivine``."""

import sys

from olivine.cli.main import main

if __name__ == "__main__":  # a process that this one spawns imports it too
    sys.exit(main())
