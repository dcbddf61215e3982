"""What a finished model's card says beside what the library writes: base against finetuned.

The energy on it is written by `runs.energy`, its table of evaluations by the evaluators (`evaluation.results.say`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.reports.run_report import comparison_table


def add_comparison(card: Path, metrics: dict[str, Any]) -> None:
    """Put the table of base against finetuned before the card's training details.

    Args:
        card: The file that the library wrote.
        metrics: What `metrics.json` holds.
    """
    section = f"## Base against finetuned\n\n{metrics['primary_metric']}.\n\n{comparison_table(metrics)}"
    text = card.read_text(encoding="utf-8")
    card.write_text(text.replace("## Training Details", f"{section}\n\n## Training Details", 1), encoding="utf-8")
