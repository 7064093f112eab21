"""Heads and neurons removed for real: surgery against zeroed columns."""

import pytest
import torch
from conftest import SAMPLING, spec_of

from obsdiff import SpecError, models, prune, surgery
from obsdiff.sites import Site, Span, Stream
from obsdiff.surgery import State


def test_gated_feed_forward_loses_both_rows_of_a_neuron():
    """GEGLU: neuron j is row j and row n + j of the projection; output is the same as with its column zero."""
    g = torch.Generator().manual_seed(0)
    project, read = torch.nn.Linear(4, 12), torch.nn.Linear(6, 4)
    site = Site("neurons", 6, 1, (Stream(Span("read"), (Span("project"), Span("project", 6))),))
    kept = torch.tensor([0, 2, 5])
    small = surgery.shrink({n: surgery.state_of(m) for n, m in (("project", project), ("read", read))}, [(site, kept)])
    x = torch.randn(3, 4, generator=g)

    def run(made: State, reading: State) -> torch.Tensor:
        hidden, gate = torch.nn.functional.linear(x, *made).chunk(2, dim=-1)
        return torch.nn.functional.linear(hidden * torch.nn.functional.gelu(gate), *reading)

    zeroed = read.weight.detach().clone()
    zeroed[:, [1, 3, 4]] = 0
    assert small["project"].weight.shape == (6, 4) and small["project"].bias.shape == (6,)
    expected = run(surgery.state_of(project), State(zeroed, read.bias.detach()))
    torch.testing.assert_close(run(small["project"], small["read"]), expected)


@pytest.mark.parametrize("pattern", ["heads", "neurons", "structured"])
@pytest.mark.parametrize("bias", [False, True])
def test_surgery_is_zeroed_columns(family, pattern, bias):
    """The small model computes what the dense one does with the consumers' columns zero (and their biases moved)."""
    small, zeroed = family.tiny(), family.tiny()
    report = prune(small, spec_of("obs_diff", pattern=pattern, bias=bias))
    full = models.denoiser_of(zeroed)
    kept = {(site.layer, site.kind): torch.tensor(site.kept) for site in report.sites}
    every = [((site.layers[0], site.kind), site) for site in family.sites(full)]
    sites = [(site, kept[name]) for name, site in every if name in kept]
    assert {s.kind for s, _ in sites} == ({"heads", "neurons"} if pattern == "structured" else {pattern})
    with torch.no_grad():
        for layer in {stream.consumer.layer for site, _ in sites for stream in site.streams}:
            own = models.linear(models.denoiser_of(small), layer)
            target = models.linear(full, layer)
            columns = surgery.staying_columns(sites, layer, target.in_features)
            target.weight.zero_()
            target.weight[:, columns] = own.weight
            if target.bias is not None:
                target.bias.copy_(own.bias)
    embeds = family.encode(small, ["a cat", "two dogs"], SAMPLING)
    outputs = []
    for pipe in (small, zeroed):
        noise = torch.Generator().manual_seed(1)
        outputs.append(pipe(**embeds, **SAMPLING.arguments(), generator=noise, output_type="latent").images)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in models.denoiser_of(small).parameters()) < sum(p.numel() for p in full.parameters())


def test_excluded_blocks_stay_dense_and_all_heads_cannot_go(family):
    pipe, dense = family.tiny(), family.tiny()
    sites = family.sites(models.denoiser_of(dense))
    block = sites[0].layers[0].split(".attn")[0]
    prune(pipe, spec_of("magnitude", pattern="structured", exclude=(f"{block}.*",)))
    left, right = (models.denoiser_of(p).state_dict() for p in (pipe, dense))
    assert all(torch.equal(left[k], right[k]) for k in left if k.startswith(f"{block}."))
    assert any(left[k].shape != right[k].shape for k in left)
    with pytest.raises(SpecError, match=r"sparsity: 0\.9 leaves none of the 2 heads of"):
        prune(family.tiny(), spec_of("magnitude", pattern="heads", sparsity=0.9))
