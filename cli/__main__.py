"""`python -m fvr.cli`."""

import sys

from . import main

sys.exit(main())
