"""``python -m ossnet``."""

import sys

from ._command import main

sys.exit(main())
