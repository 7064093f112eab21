"""The paper's models, from their configurations alone: parameters and FLOPs to the digit, and what fits where."""

from functools import cache
from typing import Any

import pytest

from obsdiff import PruneSpec, Sampling, Source, SpecError, plan, targets
from obsdiff.pipelines.sources import FACTS
from obsdiff.planning.counting import paper_flops
from obsdiff.planning.plan import Plan, describe, remove
from obsdiff.planning.weightless import meta_denoiser

pytestmark = pytest.mark.usefixtures("counted_once")
HUB = sorted(path.stem.replace("--", "/", 1) for path in FACTS.glob("*.json"))
MEDIUM, LARGE = "stabilityai/stable-diffusion-3-medium-diffusers", "stabilityai/stable-diffusion-3.5-large"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
ENDS = {
    MEDIUM: ("transformer_blocks.0.*", "transformer_blocks.23.*"),
    LARGE: ("transformer_blocks.0.*", "transformer_blocks.37.*"),
    SDXL: (),
}
# tables 9, 4 and 3
BILLIONS = {
    MEDIUM: {0.0: 2.03, 0.10: 1.91, 0.15: 1.83, 0.20: 1.78, 0.25: 1.72},
    LARGE: {0.0: 8.06, 0.15: 7.28, 0.20: 7.02, 0.25: 6.76, 0.30: 6.54},
    SDXL: {0.0: 2.57, 0.15: 2.24, 0.20: 2.13, 0.30: 1.91},
}
TFLOPS = {
    MEDIUM: {0.0: 2.84, 0.10: 2.59, 0.15: 2.43, 0.20: 2.31, 0.25: 2.19},
    LARGE: {0.0: 11.26, 0.15: 9.63, 0.20: 9.09, 0.25: 8.55, 0.30: 8.10},
    SDXL: {0.0: 5.98, 0.15: 5.33, 0.20: 5.12, 0.30: 4.70},
}
COUNTS = [(hub, sparsity) for hub, column in BILLIONS.items() for sparsity in column if sparsity]


@cache
def structured(hub: str, sparsity: float, **sampling: Any) -> Plan:
    spec = PruneSpec(
        method="magnitude",
        pattern="structured",
        sparsity=sparsity,
        exclude=ENDS[hub],
        sampling=Sampling(**({"height": 512, "width": 512} | sampling)),
    )
    return plan(Source(hub), spec)


@pytest.mark.parametrize(("hub", "sparsity"), COUNTS)
def test_parameters_are_the_papers(hub, sparsity):
    found = structured(hub, sparsity)
    assert round(found.parameters / 1e9, 2) == BILLIONS[hub][0.0]
    assert round(found.pruned_parameters / 1e9, 2) == BILLIONS[hub][sparsity]


@pytest.mark.parametrize("sparsity", [s for s in TFLOPS[LARGE] if s])
def test_flops_of_use_fall_as_the_papers_do(sparsity):
    """At 512² with attention's products: other numbers than the paper's, the same reductions."""
    found, column = structured(LARGE, sparsity), TFLOPS[LARGE]
    assert 1 - found.pruned_flops / found.flops == pytest.approx(1 - column[sparsity] / column[0.0], abs=2e-3)


@pytest.mark.parametrize("hub", TFLOPS)
def test_work_is_the_papers_as_it_counts(hub):
    """All fourteen numbers, by shapes alone; XL's 4.6949 is printed as 4.70."""
    for sparsity, expected in TFLOPS[hub].items():
        family, denoiser = meta_denoiser(Source(hub))
        spec = PruneSpec(method="magnitude", pattern="structured", sparsity=sparsity or 0.5, exclude=ENDS[hub])
        for target in targets.find(family, denoiser, spec) if sparsity else ():
            remove(denoiser, target, sparsity)
        assert paper_flops(family, denoiser) / 1e12 == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("hub", HUB)
def test_every_checkpoint_of_the_paper_can_be_planned(hub):
    """Packages of a budget keep to it, and more memory never makes a run harder."""
    source = Source(hub, dtype="bfloat16", device="cuda")
    spec = PruneSpec(packages="2GiB")
    found = plan(source, spec, budget=24 * 2**30)
    assert all(package.statistics_bytes <= 2 * 2**30 for package in found.packages)
    assert found.layers and found.flops > 0 and "GPU memory allocated, estimated" in describe(found)
    words = [plan(source, spec, budget=gib * 2**30).fits for gib in (1, 80)]
    assert words == ["not at all", "as it is"]


def test_a_large_model_fits_into_24_gib_when_its_encoders_leave():
    spec = PruneSpec(sampling=Sampling(height=512, width=512, batch_size=1))
    asked = plan(Source(LARGE, dtype="bfloat16", device="cuda"), spec)
    assert asked.memory.encoding > 24 * 2**30 and asked.fits.startswith("with --offload model")
    assert plan(Source(LARGE, dtype="float32", device="cuda"), spec).fits == "not at all"


def test_a_checkpoint_nobody_knows_is_refused_with_what_to_do():
    with pytest.raises(SpecError, match="hf download nobody/nothing"):
        plan(Source("nobody/nothing"), PruneSpec())
