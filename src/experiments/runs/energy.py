"""Energy and CO2 of this process and its children, by CodeCarbon, offline."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from experiments.config.errors import ConfigError
from experiments.runs.files import load_json, save_json

if TYPE_CHECKING:
    from codecarbon import OfflineEmissionsTracker
    from sentence_transformers.base.model import BaseModel

logger = logging.getLogger(__name__)

COUNTERS = ("intel_rapl", "windows_emi", "intel_power_gadget")  # the modes in which a CPU's counter is read


def check_country(code: str) -> None:
    """Raise ConfigError unless CodeCarbon knows the country's electricity mix."""
    from codecarbon.input import DataSource

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


def start(country_iso_code: str) -> OfflineEmissionsTracker | None:
    """Start measuring; None, with a warning, if CodeCarbon can't. Takes about 2 s the first time."""
    logging.getLogger("codecarbon").setLevel(logging.ERROR)  # it logs before it reads its own log_level
    from codecarbon import OfflineEmissionsTracker

    # "process": of several jobs on a machine each is billed for itself. An empty list: no file, no API.
    meter = OfflineEmissionsTracker(
        country_iso_code=country_iso_code, tracking_mode="process", output_methods=[], log_level="error"
    )
    meter.start()
    if getattr(meter, "_start_time", None) is None:  # CodeCarbon swallows its own errors
        logger.warning("CodeCarbon could not start: energy and CO2 are not measured")
        return None
    return meter


def read(meter: OfflineEmissionsTracker, folder: Path) -> dict[str, Any]:
    """Return what was used since the run began, and keep it for the attempts to come, should this one be killed.

    `method` is "measured" if counters of the CPU and of every GPU were read, and "estimated" if the CPU's share
    comes from its load and its nominal power. Memory is always modelled; see `parts`.

    Args:
        meter: Of this attempt.
        folder: The run's; its `energy.json` holds what each attempt used, up to the last time that it was read.
    """
    meter.flush()
    data = meter._prepare_emissions_data()  # the public figures exist only after stop()
    parts = {type(part).__name__.lower(): _method(part) for part in meter._hardware}
    counted = {method for part, method in parts.items() if part != "ram"}
    attempts = load_json(folder / "energy.json") or {}
    attempts[str(meter.run_id)] = {
        "energy_kwh": data.energy_consumed,
        "emissions_kg": data.emissions,
        "duration_s": data.duration,
        "method": "measured" if counted == {"measured"} else "estimated",
    }
    save_json(folder / "energy.json", attempts)
    used = attempts.values()
    return {
        **{key: sum(each[key] for each in used) for key in ("energy_kwh", "emissions_kg", "duration_s")},
        "country": data.country_iso_code,
        "method": "measured" if all(each["method"] == "measured" for each in used) else "estimated",
        "parts": parts,
    }


def _method(part: Any) -> str:
    if type(part).__name__ == "RAM" or (type(part).__name__ == "CPU" and part._mode not in COUNTERS):
        return "estimated"
    return "measured"


def write_card(model: BaseModel, meter: OfflineEmissionsTracker, energy: dict[str, Any], folder: Path) -> None:
    """Make the model's generated card name the energy and CO2 used so far.

    Args:
        model: Its `model_card_data` is changed; the card is written when the model is saved.
        meter: A running meter.
        energy: From `read`.
        folder: Where the card's template is kept until then.
    """
    card: Any = model.model_card_data
    data = meter._prepare_emissions_data()
    data.emissions, data.energy_consumed = energy["emissions_kg"], energy["energy_kwh"]
    data.duration = energy["duration_s"]
    # The library asks a running tracker whenever it saves; these figures outlive the tracker.
    frozen = SimpleNamespace(_start_time=0.0, _prepare_emissions_data=lambda: data)
    card.code_carbon_callback = SimpleNamespace(tracker=frozen)
    template = card_template(Path(card.template_path).read_text(encoding="utf-8"), energy["method"])
    card.template_path = folder / ".model_card_template.md"
    card.template_path.write_text(template, encoding="utf-8")


def card_template(template: str, method: str) -> str:
    """Return the library's template for a card with how the energy was found and with figures of a small run.

    The library's own says "measured" in any case, and rounds to grams, which a small run doesn't reach.

    Args:
        template: The library's.
        method: From `read`.

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
