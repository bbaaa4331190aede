"""`python -m vadv_dist.cli`."""

import sys

from vadv_dist.cli.command import main

sys.exit(main())
