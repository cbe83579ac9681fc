"""``python -m olivine`` is the same as the command ``olivine``."""

import os
import sys

if not sys.flags.safe_path and sys.path and sys.path[0] in ("", os.getcwd()):
    del sys.path[0]  # what lies in the current folder is data: nothing is imported from it

from olivine.cli.main import main

if __name__ == "__main__":  # a process that this one spawns imports it too
    sys.exit(main())
