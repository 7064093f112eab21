"""The images in a report: which captions, how large, and that a caption cannot leave its place."""

import json
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from synthetic import PROMPTS, cell_of, folders_of, record_of, sweep
from test_report import Page, page_of

from eval.analysis.analysis import Analysis
from eval.report import gallery as galleries
from eval.report.gallery import chosen, encoded, gallery, spread
from eval.report.page import linked, sorted_by, write_report


def made(records, root):
    folders = folders_of(records, root)
    return gallery(Analysis(records), {r.cell.path: f for r, f in zip(records, folders, strict=True)})


def test_every_cell_of_the_first_seed_is_there(tmp_path):
    records = sweep()
    found = made(records, tmp_path)
    (setting,) = found["settings"]
    assert [cell["label"] for cell in setting["cells"]].count("dense") == 1
    assert {cell["path"] for cell in setting["cells"]} == {r.cell.path for r in records if r.cell.seed == "0"}
    assert all(len(images) == len(setting["captions"]) == PROMPTS for images in found["images"].values())
    assert setting["metric"] == "CLIP cosine to dense"
    assert all(bool(cell["numbers"]) == (cell["label"] != "dense") for cell in setting["cells"])


def test_captions_go_from_the_worst_to_the_best():
    """By the mean over all pruned cells of the first metric of similarity that has numbers per prompt."""
    records = [r for r in sweep(seeds=(0,)) if r.cell.amount]
    values = np.random.default_rng(0).permutation(PROMPTS).astype(float)
    metric = replace(records[0].metrics["psnr_to_dense"], samples=values.tolist())
    own = [replace(r, metrics={"psnr_to_dense": metric}) for r in records]
    name, places = chosen(own)
    assert name == "psnr_to_dense" and [place for place, _ in places] == np.argsort(values).tolist()
    kinds = [kind for _, kind in places]
    assert kinds == ["worst"] * 8 + ["median"] * 8 + ["best"] * 8
    lower = [replace(r, metrics={"psnr_to_dense": replace(metric, higher_is_better=False)}) for r in own]
    assert [place for place, _ in chosen(lower)[1]] == np.argsort(-values).tolist()
    few = spread(places, 6)
    assert [kind for _, kind in few] == ["worst"] * 2 + ["median"] * 2 + ["best"] * 2
    assert [values[place] for place, _ in few] == [0, 1, 11, 12, 22, 23]
    none = [replace(r, metrics={}) for r in records]
    assert chosen(none) == (None, [(place, "") for place in range(PROMPTS)])


@pytest.mark.parametrize(("side", "shown"), [(24, 24), (512, galleries.SIDE)])
def test_images_are_exact_where_they_are_small_and_smaller_where_they_are_large(side, shown):
    pixels = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    text = encoded(Image.fromarray(pixels))
    again = Image.open(BytesIO(b64decode(text.partition(",")[2])))
    assert again.format == "WEBP" and again.size == (shown, shown)
    assert side != shown or np.array_equal(np.asarray(again.convert("RGB")), pixels)


def test_a_large_sweep_shows_fewer_captions(tmp_path, monkeypatch):
    records = sweep(seeds=(0,))
    monkeypatch.setattr(galleries, "BUDGET", 9000)
    found = made(records, tmp_path)
    size = sum(len(image) for images in found["images"].values() for image in images)
    assert galleries.LEAST <= len(found["settings"][0]["captions"]) < PROMPTS and size <= 9000


def test_models_with_captions_of_their_own_have_images_of_their_own(tmp_path):
    other = [replace(record_of(cell_of(m, s, model="other")), prompts=[f"q{i}" for i in range(PROMPTS)])
             for m, s in (("dense", 0.0), ("wanda", 0.3))]  # fmt: skip
    records = [*sweep(("wanda",), (0.3,), (0,)), *other]
    found = made(records, tmp_path)
    assert [setting["name"] for setting in found["settings"]] == ["emoji-sd3, unstructured", "other, unstructured"]
    assert len(found["images"]) == len(records)


def test_a_sweep_without_images_has_no_gallery(tmp_path):
    records = sweep(seeds=(0,))
    assert gallery(Analysis(records), {r.cell.path: tmp_path for r in records}) is None
    assert 'id="gallery-data"' not in page_of(records, tmp_path / "own")


def test_a_caption_is_text_in_the_page(tmp_path):
    nasty = "</script><b>&amp; \u2028 {{ x }} 日本"
    records = [replace(r, captions=[nasty] * PROMPTS) for r in sweep(("wanda",), (0.3,), (0,))]
    folders = folders_of(records, tmp_path)
    (tmp_path / "summary.md").write_text("# Summary\n")
    for folder in folders:
        (folder / "metrics.json").write_text("{}")
    paths = [folder / "metrics.json" for folder in folders]
    write_report(Analysis(records), paths, tmp_path, "default", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    text = page.partition('id="gallery-data">')[2].partition("</script>")[0]
    assert "<" not in text and ">" not in text and "\u2028" not in text
    assert json.loads(text)["settings"][0]["captions"][0]["text"] == " ".join(nasty.split())


def test_cells_link_to_their_runs_where_a_server_is_known(tmp_path):
    records = sweep(("wanda",), (0.3,), (0,))
    text = page_of(records, tmp_path / "own", runs="http://host:5000/#/experiments/7/runs")
    links = [a["href"] for a in Page(text).all("a") if a["href"].startswith("http")]
    assert len(links) == len(records) and all("searchFilter=tags.%60obsdiff.cell%60" in link for link in links)
    assert linked("abc", "") == "abc"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("5.01 [4.62, 5.40] °", "5.01"),
        ("−0.3", "-0.3"),
        ("3 × 256", "3"),
        ("obs_diff", ""),
        ("2:4", ""),
        ("1e-05", "1e-05"),
        ("0.50", "0.50"),
        ("", ""),
    ],
)
def test_fields_are_sorted_by_the_number_they_begin_with(text, key):
    assert sorted_by(text) == key
