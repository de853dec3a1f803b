"""`to_the_end.py PROGRAM ARGUMENTS...`: runs it, and leaves without the end of the interpreter once all has gone well.

Threads of gloo may still hold tensors of the last collective when the interpreter ends, and those that it stops then
abort the process (https://github.com/pytorch/pytorch/pull/179291).
"""

import os
import runpy
import sys

sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
sys.stdout.flush()
os._exit(0)
