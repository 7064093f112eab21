"""Heads and neurons of pipelines without a file of their own: found, removed, saved, loaded, or refused with why."""

import pytest
import torch
from conftest import SAMPLING, spec_of
from parts import weights_of
from pipelines import MAKE, SMALL, made

from obsdiff import load_pruned, models, prune, sampling, save_pruned, surgery
from obsdiff.checkpoints.checkpoint import read_pruned
from obsdiff.checkpoints.manifest import MANIFEST
from obsdiff.errors import CheckpointError, SpecError
from obsdiff.models import _auto
from obsdiff.storage.files import read_json, seal, write_json

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")  # Chroma's own import


def shape_of(site) -> tuple:
    streams = frozenset((stream.consumer, frozenset(stream.producers)) for stream in site.streams)
    return site.kind, site.groups, site.size, site.owner, streams


def test_sites_found_are_those_of_the_hand_written_families(family):
    pipe = family.tiny()
    found = _auto.of(pipe, models.Traits)
    found.watch(SAMPLING, sites=True)
    denoiser = models.denoiser_of(pipe)
    assert [shape_of(site) for site in found.sites(denoiser)] == [shape_of(site) for site in family.sites(denoiser)]
    assert not found.unknown and all(site.found for site in found.sites(denoiser))


PATTERNS = {"Flux2Klein": "heads", "Lumina2": "neurons", "Sana": "heads"}
"""what can be removed where it is not both"""


@pytest.mark.parametrize("name", MAKE)
def test_heads_and_neurons_go_as_if_they_were_zeroed(name, tmp_path):
    """The pruned pipeline samples what the dense one does with the consumers' columns zero; so does a loaded one."""
    pipe, again, zeroed = made(name), made(name), made(name)
    pattern = PATTERNS.get(name, "structured")
    report = prune(pipe, spec_of("obs_diff", pattern=pattern, sampling=SMALL, packages=2))
    assert all(len(site.kept) == site.groups - round(site.groups / 2) for site in report.sites)
    assert {site.kind for site in report.sites} == ({"heads", "neurons"} if pattern == "structured" else {pattern})
    save_pruned(pipe, tmp_path / "half", report)
    load_pruned(again, tmp_path / "half")
    assert all(torch.equal(value, weights_of(again)[key]) for key, value in weights_of(pipe).items())
    full = models.denoiser_of(zeroed)
    consumers = read_pruned(tmp_path / "half").consumers(models.family_of(zeroed), full)
    surgery.install(full, consumers, {})
    images = [
        sampling.run_pipeline(each, {"prompt": ["a cat"]}, SMALL, ["a cat"], 0).images for each in (pipe, again, zeroed)
    ]
    assert torch.equal(images[0], images[1])
    torch.testing.assert_close(images[0], images[2], rtol=1e-3, atol=1e-4)
    assert sum(p.numel() for p in models.denoiser_of(pipe).parameters()) < sum(p.numel() for p in full.parameters())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "Flux2Klein",
            r"neurons, .* those of single_transformer_blocks.0.attn.to_out are not understood: the block",
        ),
        ("Lumina2", r"to_v makes fewer channels than context_refiner.0.attn.to_q, so several .*give neurons, unstruc"),
        ("Sana", r"of this SanaTransformer2DModel no neurons are known; give heads, unstructured or N:M, such as 2:4"),
    ],
)
def test_what_is_not_understood_is_refused(name, message):
    pipe = made(name)
    before = weights_of(pipe)
    with pytest.raises(SpecError, match=rf"pattern: 'structured' removes heads and .*{message}"):
        prune(pipe, spec_of("magnitude", pattern="structured", sampling=SMALL))
    assert all(torch.equal(value, before[key]) for key, value in weights_of(pipe).items())


@pytest.mark.parametrize(
    "change",
    [
        {"streams": []},
        {"owner": "nowhere"},
        {"size": 10**6},
        {"groups": 4},
        {"kind": "neurons"},
        {"streams": [{"consumer": ["nowhere", 0], "producers": []}]},
    ],
    ids=lambda change: "-".join(change),
)
def test_an_edited_description_of_heads_is_refused(change, tmp_path):
    """By hand, with the right digests."""
    pipe = made("ZImage")
    save_pruned(pipe, tmp_path, prune(pipe, spec_of("magnitude", pattern="heads", sampling=SMALL, sparsity=0.34)))
    record = read_json(tmp_path / MANIFEST)
    record["sites"][0]["structure"] |= change
    write_json(tmp_path / MANIFEST, seal(record))
    with pytest.raises(CheckpointError, match="this pipeline has no 3 heads at"):
        load_pruned(made("ZImage"), tmp_path)


def test_a_pruned_pipeline_is_pruned_again():
    """What is left is found anew: of three heads one goes, then one of two."""
    pipe = made("ZImage")
    for heads in (2, 1):
        prune(pipe, spec_of("magnitude", pattern="heads", sampling=SMALL, sparsity=0.34 if heads == 2 else 0.5))
        attentions = [m.heads for m in models.denoiser_of(pipe).modules() if hasattr(m, "heads")]
        assert attentions and set(attentions) == {heads}
