"""What all tests share."""

import os

# Set before torch is imported: OpenMP's waiting threads otherwise spin, and two of them on a busy machine make
# a test of seconds take minutes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
