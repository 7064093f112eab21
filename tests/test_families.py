"""Which family a model's folder is of: as its pipeline says, found once, and without the large libraries after that."""

import json
import subprocess
import sys

import pytest
from pipelines import made

from obsdiff import models, registry
from obsdiff.errors import SpecError
from obsdiff.pipelines import families
from obsdiff.source import Source

ASK = """
import sys
from obsdiff.pipelines import families
from obsdiff.source import Source
print(families.told(Source(sys.argv[1])), sorted({"torch", "diffusers"} & sys.modules.keys()))
"""


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OBSDIFF_CACHE", str(tmp_path / "cache"))


def test_a_folders_family_is_its_pipelines(folders, tmp_path):
    for name, folder in folders.items():
        assert families.told(Source(str(folder))) == (name, models.traits(name))
    pipe = made("AuraFlow")
    pipe.save_pretrained(tmp_path / "aura")
    expected = (models.AUTO, models.family_of(pipe).TRAITS)
    for _ in range(2):
        assert families.told(Source(str(tmp_path / "aura"))) == expected


def test_a_class_without_a_file_is_looked_up_once(tmp_path):
    made("AuraFlow").save_pretrained(tmp_path / "aura")
    command = [sys.executable, "-c", ASK, str(tmp_path / "aura")]
    first, second = (subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2))
    assert first.endswith("['diffusers', 'torch']\n")
    assert second == first.replace("['diffusers', 'torch']", "[]")


def test_what_was_found_is_not_taken_for_another_model(tmp_path):
    folder = tmp_path / "aura"
    made("AuraFlow").save_pretrained(folder)
    flow = families.told(Source(str(folder)))
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"][1] = "DDIMScheduler"
    (folder / "model_index.json").write_text(json.dumps(index))
    assert families.told(Source(str(folder))).traits.schedulers != flow.traits.schedulers
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": "NoSuchPipeline"}))
    with pytest.raises(SpecError, match="NoSuchPipeline is not supported"):
        families.told(Source(str(folder)))


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"name": "sd3", "traits": {}}', b"[1]"])
def test_a_damaged_entry_of_the_cache_is_made_again(damage, tmp_path):
    made("AuraFlow").save_pretrained(tmp_path / "aura")
    source = Source(str(tmp_path / "aura"))
    found = families.told(source)
    (entry,) = (tmp_path / "cache/families").glob("*.json")
    entry.write_bytes(damage)
    assert families.told(source) == found
    assert entry.read_bytes() not in (damage, b"")


def test_a_new_file_of_a_family_asks_again(tmp_path, monkeypatch):
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(registry, "folder", lambda package: folder)
    families.code.cache_clear()
    before = families.code()
    (folder / "aura.py").write_text("TRAITS = 1\n")
    families.code.cache_clear()
    assert families.code() != before
    families.code.cache_clear()
