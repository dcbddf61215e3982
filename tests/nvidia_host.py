"""A host with two GPUs of 100 and 300 W, one in two MIG instances: `nvidia-smi` and NVML's Python bindings."""

import sys
from pathlib import Path

WHOLE, DIVIDED = "GPU-5d5ba0d6-d33d-2b2c-524d-9e3d8d2b8a77", "GPU-fef8089b-6ab4-4d1e-a9a3-3e6f0b2f1c10"
INSTANCES = ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f", f"MIG-{DIVIDED}/5/0"]  # as drivers write them, and wrote them
LISTED = f"""GPU 0: NVIDIA A100-SXM4-40GB (UUID: {WHOLE})
GPU 1: NVIDIA A100-SXM4-40GB (UUID: {DIVIDED})
  MIG 1g.5gb      Device  0: (UUID: {INSTANCES[0]})
  MIG 1g.5gb      Device  1: (UUID: {INSTANCES[1]})"""
SMI = f"""#!/bin/sh
case "$*" in
  -L) echo '{LISTED}' ;;
  *query-gpu=uuid*) printf '{WHOLE}\\n{DIVIDED}\\n' ;;
esac
"""
NVML = f"""
import time
from types import SimpleNamespace

UUIDS, WATTS = {[WHOLE, DIVIDED]}, [100, 300]
class NVMLError(Exception): pass
class NVMLError_NotSupported(NVMLError): pass
def nvmlInit(): pass
def nvmlDeviceGetCount(): return 2
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(gpu): return "NVIDIA A100-SXM4-40GB"
def nvmlDeviceGetUUID(gpu): return UUIDS[gpu]
def nvmlDeviceGetMemoryInfo(gpu): return SimpleNamespace(total=40 * 2**30, free=40 * 2**30, used=0)
def nvmlDeviceGetEnforcedPowerLimit(gpu): return 400_000
def nvmlDeviceGetPowerUsage(gpu): return 1000 * WATTS[gpu]
def nvmlDeviceGetTotalEnergyConsumption(gpu): return int(1000 * WATTS[gpu] * time.monotonic())
def nvmlDeviceGetUtilizationRates(gpu): return SimpleNamespace(gpu=50)
"""


def install(folder: Path) -> Path:
    """Put the host's files into a folder, which is to come first on PATH and PYTHONPATH."""
    (folder / "nvidia-smi").write_text(SMI)
    (folder / "nvidia-smi").chmod(0o755)
    (folder / "pynvml.py").write_text(NVML)
    return folder


if __name__ == "__main__":  # what a run that computes on the GPUs named is billed
    import json
    import os
    import tempfile
    import time

    from experiments.runs.energy import Meter

    os.environ["CUDA_VISIBLE_DEVICES"] = sys.argv[1]  # as a sweep gives it to a job
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter("DEU", Path(folder), [*filter(None, sys.argv[1].split(","))])
        time.sleep(1)
        found = meter.read()
        meter.tracker.stop()
    print(json.dumps(found | {"watts": 3.6e6 * meter.latest.gpu_energy / meter.latest.duration}))  # noqa: T201
