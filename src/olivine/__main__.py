"""``python -m olivine`` is the same as the command ``olivine``."""

import sys

from olivine.cli.main import main

sys.exit(main())
