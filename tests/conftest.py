"""How all tests run: how many examples Hypothesis draws, and how many threads one test process takes."""

import os

# Before anything imports numpy or torch: test processes share the cores, and a thread pool in each of them
# would make all of them slower.
if "PYTEST_XDIST_WORKER" in os.environ:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

from hypothesis import settings

# No deadlines: how long an example takes is for benchmarks/. `ci` draws the same examples every time, so that
# no change is refused by chance; `deep` looks for new ones and prints how to replay what it finds.
settings.register_profile("fast", max_examples=15, deadline=None, print_blob=True)
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True)
settings.register_profile("deep", max_examples=2000, deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
