"""Deviation of a pruned denoiser from the dense one, on every family's tiny pipeline."""

from dataclasses import replace

import pytest
import torch
from conftest import SAMPLING, spec_of

from eval.model_metrics import Deviation
from eval.profile.deviation import compared, deviation
from obsdiff import models, prune, save_pruned
from obsdiff.captions.prompts import Prompt
from obsdiff.checkpoints.checkpoint import read_pruned

PROMPTS = [Prompt("0", "a cat"), Prompt("1", "a dog"), Prompt("2", "a sun")]


def measured(family, folder, **spec) -> tuple[Deviation, bool]:
    """What deviation() says of a checkpoint, and whether it left the pipeline as it was."""
    pipe, dense = family.tiny(), family.tiny()
    save_pruned(pipe, folder, prune(pipe, spec_of(**spec)))
    before = {key: value.clone() for key, value in models.denoiser_of(dense).state_dict().items()}
    found = deviation(dense, read_pruned(folder), PROMPTS, SAMPLING, 0)
    after = models.denoiser_of(dense).state_dict()
    return found, all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_pruned_blocks_and_latents_deviate(family, pattern, tmp_path):
    found, same = measured(family, tmp_path, method="random", pattern=pattern, sparsity=0.5)
    assert same, "the dense model was changed"
    table = torch.tensor(found.by_block)
    turns = len(found.latents)  # of the sampling loop: PNDM takes one more
    assert table.shape == (len(found.blocks), turns) and SAMPLING.steps <= turns <= SAMPLING.steps + 1
    assert len(set(found.blocks)) == len(found.blocks) > 0
    assert (table > 0).all() and min(found.latents) > 0 and table.isfinite().all()


def test_dense_model_does_not_deviate_from_itself(family, tmp_path):
    found, same = measured(family, tmp_path, method="dense", pattern="unstructured")
    assert same and not torch.tensor(found.by_block).any() and not any(found.latents)


def test_only_blocks_from_the_pruned_one_on_deviate(tmp_path):
    """The inputs are the dense trajectory's, so that a block before the pruned one cannot tell."""
    from obsdiff.models import flux as family

    blocks = family.blocks(family.tiny().transformer)
    assert blocks[0] == "transformer_blocks.0" and blocks[-1] == "single_transformer_blocks.1"
    left = [f"{name}.*" for name in blocks[:-1]]
    found, _ = measured(family, tmp_path, method="random", pattern="unstructured", sparsity=0.5, exclude=left)
    table = torch.tensor(found.by_block)
    assert not table[:-1].any() and (table[-1] > 0).all()


def test_deviation_is_by_turn_of_the_sampling_loop_and_not_by_batch(tmp_path):
    from obsdiff.models import sd as family
    from obsdiff.pipelines.samplers import use

    pipe, dense = family.tiny(), family.tiny()
    sampling = replace(SAMPLING, scheduler="heun")
    use(dense, sampling)
    save_pruned(pipe, tmp_path, prune(pipe, spec_of("magnitude", sparsity=0.5)))
    pruned = read_pruned(tmp_path)
    found, whole = (deviation(dense, pruned, PROMPTS, replace(sampling, batch_size=n), 0) for n in (2, 3))
    assert len(found.latents) == len(found.by_block[0]) == 2 * SAMPLING.steps - 1
    torch.testing.assert_close(torch.tensor(found.by_block), torch.tensor(whole.by_block), rtol=1e-3, atol=1e-7)


def test_relative_error_is_over_all_streams():
    one, other = torch.ones(2, 3), torch.full((4,), 2.0)
    assert compared([one * 2, other], [one, other]).tolist() == [6.0, 22.0]
