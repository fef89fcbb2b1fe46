"""Fast paths on the CPU and private torch calls, each with the gain that was measured for it."""
