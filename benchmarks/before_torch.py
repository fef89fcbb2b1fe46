"""Import this before torch: it sets how OpenMP's idle threads wait, as the commands do."""

import os

from hebb.core import threads

os.environ.update(threads.openmp_settings())
