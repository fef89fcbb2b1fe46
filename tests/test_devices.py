"""The fast tests on pretended GPUs, in a process of their own, which torch then knows another device in.

Without it only `make devices` would notice a tensor on the wrong device.
"""

from __future__ import annotations

import subprocess
import sys

from conftest import ROOT


def test_what_is_fast_of_the_tests_on_pretended_gpus() -> None:
    command = [sys.executable, "-m", "pytest", "-m", "devices and fast", "tests/devices"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " passed" in done.stdout
