"""Inputs in every form the library takes, from tables and data sets to the rows that the trainer gets."""

import http.server
import io
import json
import threading
import wave

import datasets
import numpy as np
import PIL.Image
import pytest
from datasets import Array4D, Dataset, Features, Image, List, Value

from experiments.config.errors import ConfigError
from experiments.data import encoded_pages, file_columns, from_rows
from experiments.data.sources import hub, table

COLUMNS = {"query": "query", "positive": "document", "negatives": []}
OPTIONS = {"name": "media", "num_negatives": 0, "deduplicate": True, "on_bad_image": "error"}
NUMBER = 6
rng = np.random.default_rng(0)
WAVES = [rng.normal(size=40 + i).astype(np.float32) for i in range(NUMBER)]
VIDEOS = [rng.integers(0, 255, (2, 8, 6, 3), dtype=np.uint8) for _ in range(NUMBER)]
PICTURES = [video[0] for video in VIDEOS]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def rows(documents, feature=None, start=0):
    cells = {"query": [f"query {start + i}" for i in range(len(documents))], "document": documents}
    features = Features({"query": Value("string"), "document": feature}) if feature is not None else None
    return Dataset.from_dict(cells, features=features)


def build(documents, feature=None, **options):
    """The first rows are trained on, the last two evaluated; the first of these holds a training document too."""
    train, evaluated = documents[:-2], [documents[0], documents[-1]]
    return from_rows.build(
        rows(train, feature), rows(evaluated, feature, start=100), columns=COLUMNS, **(OPTIONS | options)
    )


def png(pixels):
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


SOUND = {"array": List(Value("float32")), "sampling_rate": Value("int32")}
CLIP = {"array": List(List(List(List(Value("uint8"))))), "video_metadata": {"fps": Value("float32")}}
PAGE = {"text": Value("string"), "image": Image()}
FORMS = {
    "sound": (WAVES, List(Value("float32")), WAVES),
    "sound of doubles": ([w.astype(np.float64) for w in WAVES], List(Value("float64")), WAVES),
    "sound with its rate": ([{"array": w, "sampling_rate": 16000} for w in WAVES], SOUND, WAVES),
    "picture": ([p.tolist() for p in PICTURES], List(List(List(Value("uint8")))), PICTURES),
    "video": ([v.tolist() for v in VIDEOS], List(List(List(List(Value("uint8"))))), VIDEOS),
    "video of a fixed shape": (VIDEOS, Array4D((2, 8, 6, 3), "uint8"), VIDEOS),
    "video with its rate": ([{"array": v.tolist(), "video_metadata": {"fps": 2.0}} for v in VIDEOS], CLIP, VIDEOS),
}


@pytest.mark.parametrize("form", FORMS)
def test_arrays_come_out_as_the_library_takes_them_and_equal_ones_are_found(form):
    documents, feature, arrays = FORMS[form]
    data = build(documents, feature)
    assert len(data.train) == NUMBER - 3 and len(data.direction.corpus) == 2  # without the document that is evaluated
    for dataset, column, wanted in ((data.train, "document", arrays[1]), (data.eval, "document", arrays[0])):
        found = dataset[0][column]
        found = found["array"] if isinstance(found, dict) else found
        assert found.dtype == (np.float32 if wanted.ndim == 1 else np.uint8) and np.array_equal(found, wanted)
    assert {data.direction.corpus[i]["document"] is not None for i in range(2)} == {True}
    assert encoded_pages.content_hashes(data.train).shape == (NUMBER - 3, 2)


def test_the_library_sees_each_form_as_what_it_is():
    from sentence_transformers.base.modality import infer_modality

    wanted = {form: form.split()[0].replace("sound", "audio").replace("picture", "image") for form in FORMS}
    for form, (documents, feature, _) in FORMS.items():
        assert infer_modality(build(documents, feature).direction.corpus[0]["document"]) == wanted[form]
    frames = build([[png(f) for f in v] for v in VIDEOS], List(Image())).train[0]["document"]
    assert infer_modality(frames) == "video" and frames["video"][0].size == (6, 8)
    both = build([{"text": f"page {i}", "image": png(p)} for i, p in enumerate(PICTURES)], PAGE).train[0]["document"]
    assert infer_modality(both) == ("image", "text") and isinstance(both["image"], PIL.Image.Image)


def test_pictures_of_the_library_s_feature_are_taken_from_pil_and_arrays():
    pictures = [PIL.Image.fromarray(PICTURES[0]), *PICTURES[1:]]
    data = build(pictures, Image())
    assert np.array_equal(np.asarray(data.train[0]["document"]), PICTURES[1])


def test_dicts_that_lack_a_part_are_empty_cells():
    cells = [{"text": f"page {i}", "image": png(p)} for i, p in enumerate(PICTURES)]
    cells[1] = {"text": "no picture", "image": None}
    with pytest.raises(ConfigError, match=r"row 1 \(from 0\) of column document: empty"):
        build(cells, PAGE)
    assert len(build(cells, PAGE, on_bad_image="skip").train) == NUMBER - 4


def test_columns_that_the_library_cannot_take_are_refused():
    for cells, feature in (([{"sound": "x"}] * 4, {"sound": Value("string")}), ([1, 2, 3, 4], Value("int64"))):
        with pytest.raises(ConfigError, match="neither text nor images, sound or video"):
            build(cells, feature)


# Files


@pytest.fixture
def folder(tmp_path):
    for i in range(NUMBER):
        with wave.open(str(tmp_path / f"{i}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes((WAVES[i % 5] * 9999).astype("<i2").tobytes())
        (tmp_path / f"page {i}.png").write_bytes(png(PICTURES[i])["bytes"])
    return tmp_path


def write(folder, documents):
    lines = [json.dumps({"query": f"query {i}", "document": document}) for i, document in enumerate(documents)]
    (folder / "rows.jsonl").write_text("\n".join(lines))
    return str(folder / "rows.jsonl")


def load(path):
    return table.load(path, None, columns=COLUMNS, num_eval_rows=1, **OPTIONS)


def test_sound_files_are_full_paths_known_by_their_content(folder):
    data = load(write(folder, [f"{i}.wav" for i in range(NUMBER)]))
    assert list(data.direction.corpus["document"]) == [str(folder / "5.wav")]
    assert list(data.train["document"]) == [str(folder / f"{i}.wav") for i in range(1, 5)]  # 0.wav sounds like 5.wav


@pytest.mark.parametrize("name", ["7.wav", "clips/7.mp4", "7.png"])
def test_a_missing_file_is_refused_by_its_row(folder, name):
    path = write(folder, ["1" + name[-4:], "0" + name[-4:], name])
    for file in ("0.mp4", "1.mp4", "0.png", "1.png"):
        (folder / file).write_bytes(png(PICTURES[0])["bytes"])
    with pytest.raises(
        ConfigError, match=rf"row 2 \(from 0\) of column document: no (page|audio|video) file .*{name}"
    ):
        load(path)


def test_a_missing_file_of_a_saved_data_set_is_refused_by_its_row(folder):
    names = [str(folder / f"{i}.wav") for i in range(NUMBER)]
    options = {"train": {}, "eval": None, "columns": COLUMNS, "num_eval_rows": 2} | OPTIONS
    rows(names).save_to_disk(folder / "saved")
    assert len(hub.load(str(folder / "saved"), **options).train) == 3
    rows([*names[:-1], "gone.wav"]).save_to_disk(folder / "broken")
    with pytest.raises(ConfigError, match=r"row 5 \(from 0\) of column document: no audio file .*gone.wav"):
        hub.load(str(folder / "broken"), **options)


def test_a_sentence_that_ends_in_a_file_s_name_is_a_text_unless_it_is_a_file(folder):
    data = load(write(folder, ["what is in diagram.png", "the rest", "how to open a.wav"]))
    assert list(data.train["document"]) == ["what is in diagram.png", "the rest"]
    data = load(write(folder, [f"page {i}.png" for i in range(NUMBER)]))
    assert isinstance(data.train.features["document"], Image)


def test_texts_on_both_sides_are_a_data_set_too(folder):
    data = load(write(folder, [f"answer {i}" for i in range(NUMBER)]))
    assert (data.train[0], list(data.direction.corpus["document"])) == (
        {"query": "query 0", "document": "answer 0"},
        ["answer 5"],
    )


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


def test_pages_of_urls_are_downloaded_and_a_dead_one_is_refused(folder):
    (folder / "a.png").write_bytes(png(PICTURES[0])["bytes"])
    (folder / "b.png").write_bytes(png(PICTURES[1])["bytes"])
    handler = type(
        "Handler", (_Quiet,), {"__init__": lambda self, *a: _Quiet.__init__(self, *a, directory=str(folder))}
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        path = write(folder, [f"{url}/a.png", f"{url}/b.png?page=1"])
        data = load(path)
        assert np.array_equal(np.asarray(data.train[0]["document"]), PICTURES[0])
        assert np.array_equal(np.asarray(data.direction.corpus[0]["document"]), PICTURES[1])
        with pytest.raises(ConfigError, match="column document: could not download .*gone.png .*404"):
            load(write(folder, [f"{url}/a.png", f"{url}/gone.png"]))
    finally:
        server.shutdown()
        server.server_close()


def test_urls_of_other_media_are_left_to_the_library(tmp_path):
    urls = [f"https://example.org/{i}.mp4" for i in range(3)]
    asked = {"document": file_columns.Asked("auto", "data.kind")}
    found, _ = file_columns.with_files(rows(urls), asked, file_columns.Origin(tmp_path, "rows", "rows"))
    assert found["document"][:] == urls
