"""Heads and neurons found by following channels: blocks that are understood, and blocks that must not be."""

import pytest
import torch
from torch import Tensor, nn

from obsdiff.models import _structure, _tracing

WIDTH, HEADS = 12, 3


class Attention(nn.Module):
    """Attention as diffusers writes it, with what a subclass does to queries and values on the way."""

    def __init__(self, shared: int = 1) -> None:
        super().__init__()
        self.heads, self.inner_dim = HEADS, WIDTH
        self.to_q, self.to_out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.to_k, self.to_v = nn.Linear(WIDTH, WIDTH // shared), nn.Linear(WIDTH, WIDTH // shared)

    def divided(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def combined(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)

    def queries(self, x: Tensor) -> Tensor:
        return self.to_q(x)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.divided(made) for made in (self.queries(x), self.to_k(x), self.to_v(x)))
        return self.to_out(self.combined(nn.functional.scaled_dot_product_attention(q, k, v)))


class Spanning(Attention):
    def queries(self, x: Tensor) -> Tensor:
        return nn.functional.rms_norm(self.to_q(x), (self.to_q.out_features,))


class Interleaved(Attention):
    def divided(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.heads)).permute(0, 3, 1, 2)

    def combined(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1).flatten(2)


class Constant(Attention):
    """Its head's dimension follows from a count that is not the attribute `heads`."""

    def divided(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


class Grouped(Attention):
    def __init__(self) -> None:
        super().__init__(shared=3)

    def divided(self, x: Tensor) -> Tensor:
        made = x.unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2)
        return made.repeat_interleave(HEADS // made.shape[1], 1)


class Forward(nn.Module):
    """A feed-forward, with a function of its hidden channels."""

    def __init__(self, hidden=torch.relu, rows: int = WIDTH, unread: bool = False) -> None:
        super().__init__()
        self.up, self.down, self.hidden = nn.Linear(WIDTH, rows), nn.Linear(WIDTH, WIDTH), hidden
        if unread:
            nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.hidden(self.up(x)))


class Twice(Forward):
    """A second layer that reads some of the hidden channels."""

    def __init__(self) -> None:
        super().__init__()
        self.aside = nn.Linear(WIDTH - 4, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.up(x))
        return self.down(hidden) + self.aside(hidden[..., : WIDTH - 4])


class Block(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return x + self.part(nn.functional.layer_norm(x, (WIDTH,)))


def looked_into(part: nn.Module) -> tuple[list, dict[str, str]]:
    torch.manual_seed(0)
    for layer in part.modules():
        if isinstance(layer, nn.Linear) and layer.weight.any():
            layer.reset_parameters()
    denoiser = nn.Module()
    denoiser.blocks = nn.ModuleList([Block(part)])
    before = {key: value.clone() for key, value in denoiser.state_dict().items()}
    call = _tracing.Call(denoiser.blocks[0], (torch.randn(2, 5, WIDTH),), {})
    inputs = (("to_q", "to_k", "to_v"), ("to_out",), ("up",), ("down",), ("aside",))
    groups = [tuple(f"blocks.0.part.{n}" for n in group) for group in inputs if hasattr(part, group[0])]
    sites, unknown = _structure.sites_of(denoiser, "blocks.0", groups, call)
    assert all(torch.equal(value, before[key]) for key, value in denoiser.state_dict().items())
    assert getattr(part, "heads", HEADS) == HEADS
    return sites, {name: f"{one.kind}: {one.why}" for name, one in unknown.items()}


def gated(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, -1)
    return value * torch.sigmoid(gate)


@pytest.mark.parametrize(
    ("part", "kind", "groups", "firsts"),
    [
        (Attention(), "heads", HEADS, [0, 0, 0]),
        (Forward(), "neurons", WIDTH, [0]),
        (Forward(gated, 2 * WIDTH), "neurons", WIDTH, [0, WIDTH]),
        (Forward(lambda x: torch.relu(x[..., 3:]), WIDTH + 3), "neurons", WIDTH, [3]),
        (Forward(lambda x: torch.relu(x - torch.eye(x.shape[-1])[0] * 1e3)), "neurons", WIDTH, [0]),
    ],
    ids=["attention", "feed-forward", "gated", "offset", "dead"],
)
def test_heads_and_neurons_are_found(part, kind, groups, firsts):
    (site,), unknown = looked_into(part)
    assert not unknown and (site.kind, site.groups, site.found) == (kind, groups, True)
    assert sorted(maker.first for maker in site.streams[0].producers) == firsts


@pytest.mark.parametrize(
    ("part", "message"),
    [
        pytest.param(Spanning(), "heads: all channels of blocks.0.part.to_q meet in one of them", id="spanning"),
        pytest.param(Interleaved(), "neurons: the block fails without some of its neurons", id="interleaved"),
        pytest.param(Constant(), "heads: the block fails without some of its heads", id="constant"),
        pytest.param(
            Grouped(),
            "heads: blocks.0.part.to_v makes fewer channels than blocks.0.part.to_q, so several heads share",
            id="grouped",
        ),
        pytest.param(
            Forward(lambda x: x.flip(-1)),
            "neurons: they are not made in the order in which they are read",
            id="flipped",
        ),
        pytest.param(
            Forward(lambda x: x * torch.arange(1.0, 1 + WIDTH)),
            "neurons: the block fails without some of its neurons",
            id="scaled",
        ),
        pytest.param(
            Forward(lambda x: x * x.shape[-1]), "neurons: removing neurons is not zeroing their channels", id="counted"
        ),
        pytest.param(Twice(), "neurons: its layers do not read the same neurons", id="twice"),
        pytest.param(Forward(unread=True), "neurons: zeroing neurons changes nothing", id="unread"),
        pytest.param(Forward(lambda x: x * 0), "", id="zero"),
        pytest.param(Forward(lambda x: x.detach()), "", id="cut"),
        pytest.param(Forward(lambda x: nn.functional.layer_norm(x, x.shape[-1:])), "", id="normed"),
    ],
)
def test_what_is_not_understood_is_not_a_site(part, message):
    """With a reason where some channels look like those of heads or neurons."""
    sites, unknown = looked_into(part)
    assert not sites and bool(unknown) == bool(message)
    assert all(why.startswith(message) for why in unknown.values())
