"""The page of the queries answered worst: what is on it, and that what is on it can't run."""

import base64
import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from datasets import Audio, Dataset, List, Value
from PIL import Image

from experiments.data.media import readable
from experiments.data.sources.table import load
from experiments.data.types import Data, Direction
from experiments.evaluation.query_values import Part
from experiments.evaluation.results import Evaluation
from experiments.evaluation.retrieval import RetrievalEvaluator
from experiments.evaluation.samples import samples
from experiments.evaluation.trec import Ranking
from experiments.models.embedders import load_embedder
from experiments.reports.failures import MAX_CHARACTERS, show, write_failures

SCRIPT = "<script>document.title = 'it ran'</script> & \"more\""
FILE = "<img src=x onerror=alert(1)>.png"


class Page(HTMLParser):
    """What a browser would find: tags with their attributes, and the text outside of styles."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self._style = [], "", False
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._style = tag == "style"

    def handle_data(self, data):
        self.text += "" if self._style else f" {data.strip()}"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight pages and queries of one's own, one of each named to do harm."""
    folder = tmp_path_factory.mktemp("own")
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["query", "page"])
        for row in range(12):
            name = FILE if row == 11 else f"page {row}.png"
            pixels = np.random.default_rng(row).integers(0, 255, (40, 60, 4), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name)
            writer.writerow([SCRIPT if row == 11 else f"question {row} " * 100, name])
    return load(
        str(folder / "rows.csv"), None, num_eval_rows=8, name="own", columns=dict(query="query", positive="page")
    )


def test_the_page_shows_the_worst_query_first_with_names_and_small_pages_and_nothing_in_it_runs(
    data, tiny_folder, tmp_path
):
    model = load_embedder(str(tiny_folder), embedding_dim=96, min_pixels=784, max_pixels=16384)
    evaluation = RetrievalEvaluator(data.directions, data.name).evaluate(model)
    page = Page(write_failures(tmp_path, evaluation, data, "cosine_ndcg@10"))
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    for image in images:
        assert image["src"].startswith("data:image/jpeg;base64,")
        thumbnail = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        assert thumbnail.size == (60, 40) and thumbnail.mode == "RGB"
    values = evaluation.dimensions[96].values["cosine_ndcg@10"]
    shown = [float(value) for value in re.findall(r"nDCG@10 +(\d\.\d{3}) ", page.text)]
    assert shown == pytest.approx(sorted(value for value in values if value < 1), abs=5e-4)
    assert len(images) == 6 * len(shown) and FILE in {image["alt"] for image in images}
    assert SCRIPT in page.text and "rows.csv row 11" in page.text
    assert max(page.text.count(f"question {row} ") for row in range(11)) <= MAX_CHARACTERS / len("question 1 ")


def test_a_rerankers_queries_are_shown_for_each_direction_end_to_end(tmp_path):
    corpus = Dataset.from_dict({"corpus_id": [*"ab"], "document": ["good", "bad"]})
    queries = Dataset.from_dict({"query_id": ["q"], "query": ["which"]})
    direction = Direction(queries, corpus, {"q": {"a"}})
    rows = Dataset.from_dict({})
    data = Data("own", rows, rows, {"up": direction, "down": direction}, "", "", "")
    present = Ranking(["q"], np.array([["a", "b"]]), np.array([[2.0, 1.0]]))
    found = Ranking(["q"], np.array([["b"]]), np.array([[1.0]]))  # the retriever missed the right one
    evaluation = Evaluation({}, rankings={"up": {"up": present}, "down": {"down": present}})
    evaluation.rankings["up_end_to_end"] = {"up": found}
    values = {"ndcg@10": np.array([1.0]), "end_to_end_ndcg@10": np.array([0.0])}
    evaluation.directions = {name: Part(["q"], values) for name in ("all", "up", "down")}
    text = Page(write_failures(tmp_path, evaluation, data, "ndcg@10")).text
    up, down = text.partition(" down ")[::2]
    assert "1 of 1 queries are below nDCG@10 end to end 1.000" in up and "not among the first 1" in up
    assert "All 1 queries are answered perfectly: nDCG@10 1.000" in down


def test_texts_and_images_are_shown_together_and_other_media_named_without_reading_them(tmp_path):
    both = {"text": "a caption", "image": Image.new("L", (500, 100)), "audio": object(), "video": None}
    shown = show(lambda: both, dict.fromkeys(both))
    assert shown.texts == ("a caption",) and len(shown.images) == 1 and shown.others == ("audio",)
    unread = lambda: pytest.fail("it was read")  # noqa: E731
    assert show(unread, Audio()).others == ("sound",)
    assert show(unread, List(Value("float32"))).others == ("array",)
    (tmp_path / "clip.mp4").write_text("nothing that could be decoded")
    corpus = Dataset.from_dict({"corpus_id": ["a"], "document": [str(tmp_path / "clip.mp4")]})
    queries = Dataset.from_dict({"query_id": ["q"], "query": ["which"]})
    direction = Direction(queries, readable(corpus), {"q": {"a"}})
    [sample] = samples(Ranking(["q"], np.array([["a"]]), np.ones((1, 1))), direction, [0])
    assert show(sample.top[0].read, corpus.features["document"]).texts == (str(tmp_path / "clip.mp4"),)
