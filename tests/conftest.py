"""Puts this folder on the path, so that tests import the reader of the format wherever they are started from."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
