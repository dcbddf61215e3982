"""What a column of texts holds: files, which must be there, or texts; refused is what only looks like a file."""

import logging
import re

import PIL.Image
import pytest
from datasets import Dataset, Image

from experiments.config.checks import check
from experiments.config.errors import ConfigError
from experiments.data.file_columns import Asked, Origin, with_files

SCANS = ["scans/page 1.png", "scans/2.png", "scans/3.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three pages in a folder, which also stand beside it without an ending, and a PDF."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "scans").mkdir()
    for number, name in enumerate(SCANS):
        PIL.Image.new("RGB", (4, 4), (40 * number, 9, 9)).save(folder / name)
        (folder / "scans" / f"{number}").write_bytes((folder / name).read_bytes())
    (folder / "manual.pdf").write_bytes(b"%PDF-1.7")
    return folder


def read(folder, *pages, kind="auto", key="data.kind"):
    rows = Dataset.from_dict({"page": list(pages)})
    found, files = with_files(rows, {"page": Asked(kind, key)}, Origin(folder, "own.csv", "own.csv"))
    assert files == ([] if found.features["page"] == rows.features["page"] else ["page"])
    return found


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        (["scans/9.png"], "row 0 (from 0) of column page: no page file {folder}/scans/9.png; if these are texts"),
        (["scans/page 9.png"], "no page file {folder}/scans/page 9.png; if these are texts type data.kind=text"),
        (["absent/manual.DOCX"], "save its pages as images (.png, .jpg), one in each row; if these are texts"),
        (
            ["page 7.png", "page 8.png", "page 9.png"],
            "looks like a file, as almost all values there do, and there is no",
        ),
        ([f"scans/{i}" for i in range(7, 10)], "'scans/7' looks like a file, as almost all values there do"),
        (
            [f"https://example.org/{i}" for i in range(3)],
            "the ending of 'https://example.org/0' tells no kind of file",
        ),
        (["a" * 300 + ".png"], "aaa.png; if these are texts"),
        (["a.txt", "b.txt", "c.txt"], "'a.txt' looks like a file, as almost all values there do"),
    ],
)
def test_what_looks_like_a_file_and_is_none_is_refused_unless_it_is_said_to_be_a_text(folder, pages, message):
    with pytest.raises(ConfigError, match=re.escape(message.format(folder=folder))) as refused:
        read(folder, *pages)
    assert str(refused.value).startswith("own.csv, row ") and "type data.kind=text" in str(refused.value)
    assert read(folder, *pages, kind="text").features["page"].dtype == "string"


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([*SCANS, "page 9.png"], "row 3 (from 0) of column page: no page file {folder}/page 9.png"),
        ([*SCANS, "a text"], "row 3 (from 0) of column page: 'a text' is no image file, while other rows have one"),
        (
            ["the text", "manual.pdf"],
            "row 1 (from 0) of column page: 'manual.pdf' is a .pdf file, which no model reads",
        ),
        (["absent/manual.PDF"], "save its pages as images (.png, .jpg), one in each row"),
        ([*SCANS, "manual.pdf"], "row 3 (from 0) of column page: 'manual.pdf' is a .pdf file"),
        (
            [f"scans/{i}" for i in range(3)],
            "the ending of 'scans/0' tells no kind of file; if it is an image type data.kind=file",
        ),
    ],
)
def test_nobody_is_told_to_call_files_texts_where_others_are_there_or_one_is_a_pdf(folder, pages, message):
    with pytest.raises(ConfigError, match=re.escape(message.format(folder=folder))) as refused:
        read(folder, *pages)
    assert "=text" not in str(refused.value)


def test_names_of_files_that_are_there_are_no_texts_if_almost_all_are_such_and_else_a_warning(folder, caplog):
    caplog.set_level(logging.WARNING)
    names = ["manual.pdf", *(f"scans/{i}" for i in range(3))]
    said = r"own.csv, row 0 .*: 'manual.pdf' is a file, as almost all values there are: leave out data.kind=text,"
    with pytest.raises(ConfigError, match=said):
        read(folder, *names, kind="text")
    read(folder, *names, "a text", kind="text")
    (warned,) = caplog.messages
    assert warned.startswith("own.csv, row 0 (from 0) of column page: of 5 values 4 name files that are there, such")


@pytest.mark.parametrize(
    "texts",
    [
        ["what is in diagram.png", "the rest", "how to open a.wav"],
        ["and/or", "how fast is 5 km/h", "TCP/IP", "a longer answer"],
        ["see /etc/hosts and https://example.org/a.png", "x", "y"],
        ["n/a"],
        ["w/o plugins, how do I open a .docx", "TCP/IP as in network.png", "x"],
        ["a long text " * 30 + "and a.png", "x"],
        [None, "a text"],
    ],
)
def test_texts_that_only_mention_files_stay_texts(folder, texts):
    assert read(folder, *texts)["page"][:] == texts


def test_files_that_are_there_are_read_whatever_their_names(folder):
    assert read(folder, *SCANS, None)[0]["page"].size == (4, 4)
    without_ending = [f"scans/{i}" for i in range(3)]
    assert isinstance(read(folder, *without_ending, SCANS[0], kind="file").features["page"], Image)


def test_a_column_that_is_said_to_hold_files_holds_nothing_else(folder):
    for pages, message in (
        (["a text"], "row 0 (from 0) of column page: no page file {folder}/a text"),
        ([*SCANS, "scans/9"], "row 3 (from 0) of column page: no page file {folder}/scans/9"),
        (["manual.pdf"], "'manual.pdf' is a .pdf file, which no model reads"),
    ):
        with pytest.raises(ConfigError, match=re.escape(message.format(folder=folder))) as refused:
            read(folder, *pages, kind="file")
        assert "=text" not in str(refused.value)


def test_a_text_that_the_library_reads_as_a_file_can_be_no_text(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(
        ConfigError, match=r"'scans/2.png' is a file or URL, which the library reads even where data.kind"
    ):
        read(folder, "a text", "scans/2.png", kind="text")


def test_what_queries_hold_is_said_by_a_key_of_its_own(folder):
    with pytest.raises(ConfigError, match=r"'manual.docx' is a .docx file, .* type data.query_kind=text"):
        read(folder, "manual.docx", key="data.query_kind")


def test_only_three_kinds_can_be_said(composed):
    for key in ("kind", "query_kind"):
        with pytest.raises(ConfigError, match=f"data.{key}=image: choose from auto, file, text"):
            check(composed("data=table", "data.train=a.csv", f"data.{key}=image"))
