"""`python -m onnx2nn.cli` is the same as `onnx2nn`."""

import sys

from onnx2nn.cli import main

sys.exit(main())
