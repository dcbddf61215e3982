"""The options of `data` that sources share, described once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Required, TypedDict

from experiments.config.bounds import FileOrText, NotNegative, OnBadImage, Positive


class ItemOptions(TypedDict, total=False):
    """What is done about equal and about unreadable items.

    Attributes:
        deduplicate: Equal items (by encoded bytes) are one: pages of the corpus, queries of the evaluation; and
            training rows holding an item of the evaluation are dropped. False: all rows as they stand.
        on_bad_image: `error`, or `skip` to leave out rows with an unreadable page or an empty cell.
        evaluation_only: No training rows: they are not read, but where the evaluation is taken from among them.
    """

    deduplicate: bool
    on_bad_image: OnBadImage
    evaluation_only: bool


class ColumnOptions(ItemOptions, total=False):
    """Which columns are used.

    Attributes:
        name: Of the evaluation, in metrics and reports.
        columns: `query`, `positive` (column names) and `negatives` (a list of them); `file` and `page_number`, if
            columns tell of which document a positive is a page, and which page; `corpus`, if the column of
            data.corpus is called otherwise than the positive's.
        num_negatives: Negatives in a training row.
        num_eval_negatives: Negatives in a row of the evaluation loss; None: as in a training row.
    """

    name: Required[str]
    columns: Required[Mapping[str, Any]]
    num_negatives: NotNegative
    num_eval_negatives: NotNegative | None


class RowOptions(ColumnOptions, total=False):
    """Which rows are used.

    Attributes:
        num_train_rows: The first so many; None: all.
        num_eval_rows: The first so many; None: all, or of the training rows the last fifth, at most 100.
        kind: What columns of texts hold as documents: `file`: names of files, which must be there, images where the
            ending tells no kind; `text`: texts, whatever they look like; `auto`: files where values end like such,
            texts elsewhere, and refused is what looks like a file and is none.
        query_kind: The same of the queries.
    """

    num_train_rows: Positive | None
    num_eval_rows: Positive | None
    kind: FileOrText
    query_kind: FileOrText
