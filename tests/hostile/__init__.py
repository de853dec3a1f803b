"""Models that nobody would export, in two streams, for a build that watches itself."""

import sys
from pathlib import Path

# As pytest has it: the kept cases of ONNX's suite are of the module `backend`.
sys.path.append(str(Path(__file__).parents[1]))
