from pathlib import Path

import pytest
from datasets import Image


@pytest.fixture(scope="session")
def encoded():
    """Gives the encoded pages of a column, wherever they lie."""

    def read(dataset, column):
        values = dataset.cast_column(column, Image(decode=False))[column]
        return [value["bytes"] or Path(value["path"]).read_bytes() for value in values]

    return read
