"""Memory and time of data=vdr_multilingual on a local stand-in of its schema, and whether every negative is right.

python -m benchmarks.multilingual_memory [ROWS ...]      by default 2,000 and 20,000

Each size is a process of its own that has loaded 200 rows before, to have imported everything. What counts is
anonymous memory: the rest are pages of memory-mapped files, which the kernel can drop.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experiments.data.types import Data

SIZE = (80, 100)  # width and height of a page: 24 kB of noise

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def memory_mib() -> dict[str, float]:
    """Return this process's anonymous, resident and proportional memory."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {"anonymous": kib["Anonymous"] / 1024, "rss": kib["Rss"] / 1024, "pss": kib["Pss"] / 1024}


def load(data: Path, scratch: Path) -> Data:
    """Load four negatives a row."""
    from experiments.data.sources import multilingual

    options = {"num_eval_rows": 50, "num_negatives": 4, "deduplicate": False, "cache_dir": str(scratch / "cache")}
    return multilingual.load(str(data), "en", "vdr", **options)


def measure(folder: Path) -> dict[str, float]:
    """Load four negatives a row, go through all rows, compare every page with the one that its id names."""
    import datasets
    import pyarrow.parquet as pq

    import standin

    datasets.config.HF_DATASETS_CACHE = folder / "datasets"
    datasets.disable_progress_bars()
    load(folder / "warm-up", folder)
    start, peak, done = memory_mib(), {"anonymous": 0.0, "rss": 0.0, "pss": 0.0}, Event()

    def watch() -> None:
        while not done.wait(0.1):
            for key, value in memory_mib().items():
                peak[key] = max(peak[key], value)

    thread = Thread(target=watch)
    thread.start()
    began = time.perf_counter()
    data = load(folder / "measured", folder)
    seconds = time.perf_counter() - began
    for start_row in range(0, len(data.train), 64):
        data.train[start_row : start_row + 64]
    done.set()
    thread.join()

    table = pq.read_table(
        sorted((folder / "measured" / "en").glob("*.parquet")), columns=["id", "query", "negatives"]
    ).to_pylist()
    row_of = {row["id"]: number for number, row in enumerate(table)}
    by_query = {row["query"]: number for number, row in enumerate(table) if row["query"]}
    checked = 0
    for row in data.train.cast_column("image", datasets.Image(decode=False)).select_columns(["query", "image"]):
        assert Path(row["image"]["path"]).read_bytes() == standin.page("en", by_query[row["query"]], SIZE)
    for k in range(4):
        column = data.train.select_columns(["query", f"negative_{k}"])
        for row in column.cast_column(f"negative_{k}", datasets.Image(decode=False)):
            number = by_query[row["query"]]
            ids = [i for i in dict.fromkeys(table[number]["negatives"]) if i in row_of and row_of[i] != number]
            right = standin.page("en", row_of[ids[k]], SIZE)
            assert Path(row[f"negative_{k}"]["path"]).read_bytes() == right, (number, k)
            checked += 1
    usable = sum(
        len({i for i in table[number]["negatives"] if i in row_of and row_of[i] != number}) >= 4
        for number in by_query.values()
    )
    assert len(data.train) == usable - 50
    grown = {f"{key}_grown": peak[key] - start[key] for key in peak}
    return {
        "rows": len(table),
        "training_rows": len(data.train),
        "negatives_right": checked,
        "seconds": seconds,
    } | grown


def main() -> None:
    """Print a line for each size."""
    import datasets

    import standin

    datasets.disable_progress_bars()
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    for rows in [int(argument) for argument in sys.argv[1:]] or [2_000, 20_000]:
        with tempfile.TemporaryDirectory() as folder:
            standin.write(Path(folder, "warm-up"), 200, languages=("en",), size=SIZE)
            standin.write(Path(folder, "measured"), rows, languages=("en",), size=SIZE)
            size = sum(file.stat().st_size for file in Path(folder, "measured", "en").glob("*.parquet")) / 2**20
            command = [sys.executable, "-m", "benchmarks.multilingual_memory", "--measure", folder]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"{result['rows']:,} rows ({size:.0f} MiB): {result['training_rows']:,} training rows, "
            f"{result['negatives_right']:,} negatives right, {result['seconds']:.1f} s; memory grew by "
            f"{result['anonymous_grown']:.0f} MiB (anonymous), {result['rss_grown']:.0f} MiB (RSS), "
            f"{result['pss_grown']:.0f} MiB (PSS)",
            flush=True,
        )


if __name__ == "__main__":
    main()
