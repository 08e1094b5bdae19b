"""``python -m pheon``."""

import sys

from pheon._cli import main

sys.exit(main())
