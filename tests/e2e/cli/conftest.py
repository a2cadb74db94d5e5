"""Fixtures of the command-line tests."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from cli_support import store  # noqa: E402,F401  (the path must be set first)
