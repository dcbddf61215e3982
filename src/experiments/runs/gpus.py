"""The GPUs that the jobs of a sweep may have."""

from __future__ import annotations

import os
import re
import shutil
import subprocess


def visible_gpus() -> list[str]:
    """Return the GPUs that jobs may have, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, timeout=60)
    return re.findall(r"GPU-[\w-]+", listed.stdout)
