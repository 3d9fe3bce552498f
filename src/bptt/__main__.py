"""`python -m bptt` is the command line."""

import sys

from bptt.cli import main

sys.exit(main())
