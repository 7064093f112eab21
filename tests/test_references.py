"""FID against other sets of real images: cropped, resized, or those of the prompts alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import entries
from PIL import Image
from synthetic import sweep

from eval import image_metrics
from eval.analysis.analysis import Analysis
from eval.image_metrics import Images
from eval.images.image_files import ImageFiles
from eval.images.views import View
from eval.loading import load_images
from eval.measure import measurable
from eval.networks.features import Evaluator
from eval.report.summary_page import markdown
from eval.sweep import config as configs
from eval.sweep.config import read_record, read_sweep
from eval.sweep.pairing import REFERENCES, paired
from obsdiff import registry
from obsdiff.captions.prompts import Prompt, read_prompts
from obsdiff.errors import SpecError

ROOT = Path(__file__).parents[1]
REAL = ROOT / "zoo/emoji-data/reference"


def image_of(*colours: int) -> Image.Image:
    """Columns of 10×20 pixels, one of each grey."""
    return Image.fromarray(np.repeat(np.array(colours, np.uint8), 10)[None].repeat(20, axis=0)).convert("RGB")


def test_cropped_keeps_the_middle_and_resized_all_of_it():
    image = image_of(0, 0, 90, 90, 200, 200)
    cropped, resized = (np.asarray(View(kind, (10, 10)).of(image)) for kind in ("cropped", "resized"))
    assert cropped.shape == resized.shape == (10, 10, 3)
    assert abs(cropped.astype(int) - 90).max() < 10
    assert abs(resized[0, [0, 4, 9], 0].astype(int) - [0, 90, 200]).max() < 10
    assert View("cropped", image.size).of(image) is image


@pytest.fixture(scope="module")
def framed(tmp_path_factory) -> Images:
    """Real images as if generated; the reference has them in the middle of wide black ones, and others beside."""
    folder, prompts = tmp_path_factory.mktemp("framed"), read_prompts(ROOT / "zoo/emoji-data/benchmark.csv")[:40]
    own = [REAL / f"{prompt.id}.png" for prompt in prompts]
    (folder / "reference").mkdir()
    for path in own:
        wide = Image.new("RGB", (64, 32))
        wide.paste(Image.open(path), (16, 0))
        wide.save(folder / "reference" / path.name)
    for i in range(10):
        image_of(i, 255 - i).save(folder / "reference" / f"other {i}.png")
    evaluator = Evaluator(str(ROOT / "zoo/emoji-clip"), folder / "cache")
    return load_images(own, own, folder / "reference", prompts, evaluator, references=REFERENCES)


def values(images: Images) -> dict[str, float]:
    names = ("fid", *(f"fid_{kind}" for kind in REFERENCES))
    return {name: registry.load("eval.image_metrics", name).compute(images)[0] for name in names}


def test_each_reference_is_what_its_name_says(framed):
    """Cropped, the prompts' own real images are the generated ones to the last bit; in no other view are they."""
    found, width = values(framed), framed.features.shape[1] ** 0.5
    files = ImageFiles.of_folder(Path(framed.about["reference"]["folder"])).paths
    places = [[path.name for path in files].index(path.name) for path in framed.files.paths]
    assert torch.equal(framed.references["cropped"][places], framed.features * width)
    assert torch.equal(framed.references["paired"], framed.reference[places]) and len(places) == 40
    assert framed.references["resized"].shape == framed.reference.shape == (50, framed.features.shape[1])
    assert 0 < found["fid_cropped"] < min(found["fid"], found["fid_resized"], found["fid_paired"]) / 2
    assert found["fid_paired"] < found["fid"]  # the others are no prompt's
    assert framed.about["cropped"]["seen"] == "cropped to 32×32, bicubic" and framed.about["paired"]["count"] == 40


def test_a_model_file_may_list_every_reference():
    schema = yaml.safe_load((ROOT / "workflow/schemas/model.schema.yaml").read_text())
    listed = schema["properties"]["evaluation"]["properties"]["fid_references"]["items"]["enum"]
    assert listed == list(REFERENCES) and {f"fid_{kind}" for kind in listed} <= set(entries("eval.image_metrics"))


def test_only_what_the_key_lists_is_measured(framed):
    listing = {key: about for key, about in framed.about.items() if key not in REFERENCES}
    for kind in REFERENCES:
        traits = image_metrics.traits(f"fid_{kind}")
        assert traits.table == "references" and measurable(traits, framed)
        assert not measurable(traits, Images(**{**vars(framed), "about": listing}))
    assert measurable(image_metrics.traits("fid"), Images(**{**vars(framed), "about": listing}))


def prompts_of(*ids: str) -> list[Prompt]:
    return [Prompt(id=id, caption=f"a {id}") for id in ids]


@pytest.mark.parametrize("name", ["7.png", "val/7.JPG", "COCO_val2014_000000000007.jpg", "a_7.webp"])
def test_a_prompts_image_is_told_by_its_name(name):
    files = [Path("17.png"), Path(name), Path("70.png"), Path("COCO_val2014_000000000077.jpg")]
    assert paired(files, prompts_of("7", "70")) == [1, 2]


def test_prompts_without_an_image_or_with_two_are_refused():
    files = [Path("7.png"), Path("b/COCO_val2014_000000000007.jpg"), Path("8.png")]
    with pytest.raises(SpecError, match=r"fid_references: 'paired' .* 2 of 3 have none \(the first is '9'\); name"):
        paired(files, prompts_of("8", "9", "10"))
    with pytest.raises(SpecError, match=r"'7\.png' and 'b/COCO_val2014_000000000007\.jpg' both belong .* '7'; keep"):
        paired(files, prompts_of("8", "7"))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("square", r"evaluation\.fid_references.*'square'.*cropped"),
        ("paired", "'paired' needs a real image of every prompt, and 256 of 256 have none"),
    ],
)
def test_a_config_says_so_before_any_job(kind, message, monkeypatch, tmp_path):
    image_of(0).save(tmp_path / "other.png")
    monkeypatch.chdir(ROOT)
    record = read_record("emoji-sd3")
    record["evaluation"] |= {"fid_references": [kind], "reference": str(tmp_path)}
    monkeypatch.setattr(configs, "MODELS", tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(record))
    base = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    with pytest.raises(SpecError, match=message):
        read_sweep(base | {"models": ["mine"], "grid": {"method": ["dense"], "sparsity": [0.5]}})


def test_the_summary_has_a_table_of_references_where_there_are_any():
    records = sweep(("wanda",), (0.5,), (0,))
    assert "FID by reference" not in markdown(Analysis(records))
    for record in records:
        record.metrics["fid_paired"] = record.metrics["fid"]
    text = markdown(Analysis(records))
    section = text.split("## FID by reference")[1].split("\n## ")[0]
    assert "FID" in section and section.count("\n| wanda") == 1 and "dense" in section
