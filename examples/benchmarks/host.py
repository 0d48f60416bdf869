"""Describes the machine and the Python that figures were taken with; it does not need Keras."""

import os
import platform
from pathlib import Path

import numpy as np


def host():
    """Returns the processor, its cores, the load average and versions."""
    cpu = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg(),
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
