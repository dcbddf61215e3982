"""Energy and CO2 of this process and its children, by CodeCarbon, offline."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from codecarbon import OfflineEmissionsTracker
from codecarbon.core.gpu import AllGPUDevices
from codecarbon.core.hardware_cache import clear_cache
from codecarbon.input import DataSource
from codecarbon.output import BaseOutput, EmissionsData, OutputMethod

from experiments.config.errors import ConfigError
from experiments.runs.files import load_json, save_json

if TYPE_CHECKING:
    from sentence_transformers.base.model import BaseModel

NOT_MEASURED = "not measured"
FROM_WORST = (NOT_MEASURED, "estimated", "measured")
COUNTERS = ("intel_rapl", "windows_emi", "intel_power_gadget")  # the modes in which a CPU's counter is read

logger = logging.getLogger(__name__)


def check_country(code: str) -> None:
    """Raise ConfigError unless CodeCarbon knows the country's electricity mix."""
    names = {key: mix["country_name"] for key, mix in DataSource().get_global_energy_mix_data().items()}
    if code in names:
        return
    by_name = {name.lower(): key for key, name in names.items()}
    typed = str(code).lower()
    near = [name for name in by_name if name.startswith(typed)] or difflib.get_close_matches(typed, by_name, n=3)
    guesses = [typed.upper()] if typed.upper() in names else [by_name[name] for name in near[:3]]
    known = ", ".join(f"{guess} ({names[guess]})" for guess in guesses) or "such as USA, DEU, FRA"
    raise ConfigError(
        f"tracking.country_iso_code={code}: no such country is known; type three letters (ISO 3166): {known}"
    )


class Meter(BaseOutput):
    """Measures from when it is made until `tracker.stop()`; the first takes about 2 s to start.

    It is what CodeCarbon puts its figures out to: they go into no file and to no server.
    """

    def __init__(self, country_iso_code: str, folder: Path, gpus: Collection[str]) -> None:
        """Start, with a warning if CodeCarbon can't.

        Args:
            country_iso_code: See `tracking.track`.
            folder: The run's, whose `energy.json` has every attempt.
            gpus: UUIDs of the GPUs that the run computes on; the others of the host aren't billed to it.
        """
        logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it logs before it reads its own log_level
        self.folder, self.gpus = folder, gpus
        if not (gpu_ids := _indices(gpus)):
            clear_cache()  # by which a second tracker without GPUs would be given all of them
        self.latest: Any = None  # CodeCarbon's EmissionsData since the start
        self.tracker = OfflineEmissionsTracker(
            country_iso_code=country_iso_code,
            tracking_mode="process",  # of several jobs on a machine each is billed for itself
            gpu_ids=gpu_ids,  # without, it looks at CUDA_VISIBLE_DEVICES, and finds no UUID of those
            output_methods=[OutputMethod.LOGGER],
            logging_logger=self,
            log_level="error",
        )
        self.tracker.start()
        self.tracker.flush()
        if self.latest is None:  # CodeCarbon swallows its own errors
            logger.warning("CodeCarbon could not start: energy and CO2 are not measured")

    def out(self, total: EmissionsData, delta: EmissionsData) -> None:
        """Take the figures since the start."""
        self.latest = total

    def read(self) -> dict[str, Any] | None:
        """Return what was used since the run began, and keep it for the attempts to come, should this one be killed.

        `method` is "measured" if counters of the CPU and of every GPU were read, and "estimated" if the CPU's share
        comes from its load and its nominal power; with "without the gpu" after it where a counter counted nothing, as
        that of a MIG instance, which has none. Memory is always modelled; see `parts`. Of torchrun's processes all
        GPUs on this host are counted, and the load of the main one. None if it couldn't start.
        """
        if self.latest is None:
            return None
        self.tracker.flush()
        parts = _methods(self.tracker, self.latest, bool(self.gpus))
        attempts = load_json(self.folder / "energy.json") or {}
        attempts[self.latest.run_id] = {
            **{"energy_kwh": self.latest.energy_consumed, "emissions_kg": self.latest.emissions},
            **{"duration_s": self.latest.duration, "parts": parts},
        }
        save_json(self.folder / "energy.json", attempts)
        used = attempts.values()
        for part, method in parts.items():
            parts[part] = min((each.get("parts", {}).get(part, method) for each in used), key=FROM_WORST.index)
        return {
            **{key: sum(each[key] for each in used) for key in ("energy_kwh", "emissions_kg", "duration_s")},
            "country": self.latest.country_iso_code,
            "method": in_words(parts),
            "parts": parts,
        }

    def write_card(self, model: BaseModel, energy: dict[str, Any]) -> None:
        """Make the model's generated card, which is written when it is saved, name what `read` has returned."""
        card: Any = model.model_card_data
        used = replace(self.latest, emissions=energy["emissions_kg"], energy_consumed=energy["energy_kwh"])
        # The library asks a running tracker whenever it saves; these figures outlive the tracker.
        frozen = SimpleNamespace(_start_time=0.0, _prepare_emissions_data=lambda: used)
        card.code_carbon_callback = SimpleNamespace(tracker=frozen)
        template = card_template(Path(card.template_path).read_text(encoding="utf-8"), energy["method"])
        card.template_path = self.folder / ".model_card_template.md"
        card.template_path.write_text(template, encoding="utf-8")


def _indices(gpus: Collection[str]) -> list[int]:
    """Return the numbers by which CodeCarbon, as the driver, knows GPUs; MIG instances have none."""
    listed = AllGPUDevices().get_gpu_static_info() if gpus else []
    return [gpu["gpu_index"] for gpu in listed if gpu["uuid"] in gpus]


def _methods(tracker: OfflineEmissionsTracker, used: EmissionsData, has_gpus: bool) -> dict[str, str]:
    """Return how the figure of each part of the machine is found, which CodeCarbon has in private alone."""
    methods = {"gpu": NOT_MEASURED} if has_gpus else {}
    if os.environ.get("LOCAL_WORLD_SIZE") != os.environ.get("WORLD_SIZE"):  # torchrun sets both
        methods["other hosts"] = NOT_MEASURED
    for part in tracker._hardware:
        name = type(part).__name__.lower()
        is_counted = part._mode in COUNTERS if name == "cpu" else name != "ram"
        counted = "measured" if getattr(used, f"{name}_energy", True) else NOT_MEASURED
        if name != "gpu" or has_gpus:
            methods[name] = counted if is_counted else "estimated"
    return methods


def in_words(parts: dict[str, str]) -> str:
    """Return how the energy of all parts together was found."""
    missing = [part for part, method in parts.items() if method == NOT_MEASURED]
    counted = {method for part, method in parts.items() if part not in ("ram", *missing)}
    found = "measured" if counted == {"measured"} else "estimated"
    return " without the ".join([found, *missing])


def card_template(template: str, method: str) -> str:
    """Return the library's template for a card with how the energy was found and with figures of a small run.

    The library's own says "measured" in any case, and rounds to grams, which a small run doesn't reach.

    Raises:
        ValueError: If the template doesn't say what is to be said otherwise.
    """
    changes = {
        "emissions were measured using": f"emissions were {method} using",
        '"%.3f"|format(co2_eq': '"%.4g"|format(co2_eq',
    }
    for text, ours in changes.items():
        if text not in template:
            raise ValueError(f"the library's template for model cards has no {text!r} for the energy any more")
        template = template.replace(text, ours)
    return template
