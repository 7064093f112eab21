"""packages: sequential — every layer is calibrated on the pruned layers before it, wherever stopped calls wait."""

import re
from dataclasses import replace

import pytest
import torch
from conftest import SAMPLING, spec_of

from obsdiff import models, prune
from obsdiff.calibration.calls import fold, unfold
from obsdiff.calibration.runs import Calibration
from obsdiff.calibration.stops import scope_of
from obsdiff.calibration.stored import trajectory_of
from obsdiff.calibration.walking import Walk
from obsdiff.canonical import canonical
from obsdiff.errors import LayerError, SpecError
from obsdiff.packages import layers
from obsdiff.pipelines import samplers
from obsdiff.sampling import Sampling
from obsdiff.spec import PruneSpec

SHORT = replace(SAMPLING, steps=2, batch_size=1)
CPU = torch.device("cpu")


def short(**more) -> PruneSpec:
    """Along all steps, unless it says otherwise."""
    own = {"packages": "sequential", "calibration_steps": 0, "prompts": ("a cat", "two dogs"), "sampling": SHORT}
    return spec_of("obs_diff", **own | more)


def weights(pipe) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in models.denoiser_of(pipe).state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_a_family_says_the_order_of_its_calls(family):
    denoiser, called = models.denoiser_of(family.tiny()).to("meta"), []
    for group in family.groups(denoiser):
        for name in group:
            layer = models.linear(denoiser, name)
            layer.register_forward_pre_hook(lambda *_, first=group[0]: called.append(first))
    with torch.no_grad():
        denoiser(**family.example(denoiser, 16, 16, Sampling(max_sequence_length=4)))
    assert list(dict.fromkeys(called)) == [group[0] for group in family.groups(denoiser)]
    assert sorted(n for g in family.groups(denoiser) for n in g) == sorted(layers(family.units(denoiser)))


@pytest.mark.parametrize("scheduler", [None, "heun"])
def test_calls_made_again_give_the_statistics_of_sampling(family, scheduler):
    """To the bit, weights of steps included, also where a step takes several calls."""
    if scheduler and scheduler not in family.TRAITS.schedulers:
        scheduler = "dpm++"
    pipe, spec = family.tiny(), short(sampling=replace(SHORT, scheduler=scheduler))
    samplers.use(pipe, spec.sampling)
    denoiser = models.denoiser_of(pipe)
    groups = family.groups(denoiser)
    calibration, trajectory = Calibration(pipe, spec), trajectory_of(spec, {}, None)
    with torch.no_grad():
        expected = calibration.statistics(denoiser, groups, "hessian", "test")
        trajectory.record(calibration, denoiser)
        alphas = calibration.alphas(trajectory.steps)
        found = trajectory.statistics(denoiser, groups, "hessian", alphas, CPU)
    for group in groups:
        assert torch.equal(found[group].products, expected[group].products)
        assert found[group].weight == expected[group].weight


@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_a_layers_statistic_is_of_the_cached_calls_on_all_that_was_pruned_before(family, pattern, monkeypatch):
    """To the bit, as if every call were made from its beginning on the model as it is then."""
    walked, turns = Walk.statistics, []

    def compared(self, target, kind):
        found = walked(self, target, kind)
        turns.append(target)
        if len(turns) % 3 != 2:
            return found
        for group, direct in self.trajectory.statistics(
            self.denoiser, target.unit, kind, self.alphas, self.device
        ).items():
            assert torch.equal(found[group].value(CPU).hessian, direct.value(CPU).hessian), group
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Walk, "statistics", compared)
        pipe = family.tiny()
        report = prune(pipe, short(pattern=pattern))
    assert [target.layers for target in turns] == report.packages
    expected = weights(pipe)
    assert not same(expected, weights(family.tiny()))


@pytest.mark.parametrize("pattern", ["unstructured", "structured"])
def test_where_calls_wait_changes_no_bit(family, pattern, tmp_path, capsys):
    """In memory, in files, computed again, or some here and some there."""
    split = (
        "0.00015GiB" if family.TRAITS.denoiser == "unet" else "0.00005GiB"
    )  # between what one call holds and what two do
    found = []
    for place, memory, folder in (
        (r"wait \d+ in memory;", "1GiB", None),
        (r"wait \d+ in files;", "0GiB", tmp_path / "files"),
        (r"wait \d+ computed again at every stop;", "0GiB", None),
        (r"wait \d+ in files, \d+ in memory;", split, tmp_path / "both"),
    ):
        pipe = family.tiny()
        once = replace(SHORT, steps=1)
        prune(pipe, short(pattern=pattern, trajectory_memory=memory, sampling=once), folder)
        found.append(weights(pipe))
        assert re.search(f"calls of the denoiser {place}", capsys.readouterr().err)
        if folder:
            assert not list(folder.rglob("waiting-*"))
    assert all(same(found[0], other) for other in found[1:])


def test_calls_that_leave_a_device_come_back_whole(family, monkeypatch):
    """As on a GPU: everything that a stopped call holds is copied away, and its storages are empty until it goes on."""
    made = []
    for leaves in (False, True):
        with monkeypatch.context() as patch:
            patch.setattr(Walk, "leaves", property(lambda self, leaves=leaves: leaves))
            pipe = family.tiny()
            prune(pipe, short(pattern="structured" if family.TRAITS.denoiser == "unet" else "unstructured"))
            made.append(weights(pipe))
    assert same(*made)


def test_one_layer_alone_is_calibrated_as_one_package(family):
    names = layers(family.units(models.denoiser_of(family.tiny())))
    left = names[len(names) // 2]
    made = []
    for packages in (1, "sequential"):
        pipe = family.tiny()
        report = prune(pipe, short(packages=packages, exclude=tuple(name for name in names if name != left)))
        assert report.packages == [[left]]
        made.append(weights(pipe))
    assert same(*made)


@pytest.mark.parametrize(
    "more", [{"pattern": "2:4"}, {"bias": True}, {"allocation": "owl"}, {"bias": True, "pattern": "heads"}]
)
def test_options_of_pruning_work_along_the_walk(family, more):
    pipe = family.tiny()
    report = prune(pipe, short(**more))
    assert report.sites or report.sparsity == pytest.approx(0.5, abs=0.02)
    assert all(len(site.kept) == site.groups / 2 for site in report.sites)
    assert any(layer.bias_moved for layer in report.layers) == bool(more.get("bias"))


def test_broken_layers_are_named(family):
    pipe = family.tiny()
    denoiser = models.denoiser_of(pipe)
    spec = short()
    calibration, trajectory = Calibration(pipe, spec), trajectory_of(spec, {}, None)
    with torch.no_grad():
        trajectory.record(calibration, denoiser)
        name = next(name for name, _ in denoiser.named_parameters()).rpartition(".")[0]
        denoiser.get_submodule(name).weight.fill_(float("nan"))
        walk = Walk(trajectory, denoiser, torch.ones(trajectory.steps), CPU, None)
        from obsdiff.targets import find

        target = find(family, denoiser, spec)[0]
        with pytest.raises(LayerError, match=f"{name}: its output holds NaN or infinity at step 1 of .*prompts 1 to 1"):
            walk.statistics(target, "hessian")


def test_a_layer_that_no_call_reaches_is_named(family, monkeypatch):
    order = family.groups
    monkeypatch.setattr(family, "groups", lambda denoiser: order(denoiser)[::-1])
    with pytest.raises(LayerError, match="its input was never seen"):
        prune(family.tiny(), short())


def test_methods_without_calibration_ignore_it(family):
    assert canonical(spec_of("magnitude", packages="sequential")) == canonical(spec_of("magnitude"))
    assert canonical(short(trajectory_memory="0GiB")) == canonical(short())
    with pytest.raises(SpecError, match="trajectory_memory: '8GB' is not a size such as '8GiB'"):
        short(trajectory_memory="8GB")


def test_scopes_hold_what_a_target_touches_and_are_called(family):
    denoiser = models.denoiser_of(family.tiny())
    from obsdiff.targets import find

    for target in find(family, denoiser, short(pattern="structured")):
        scope = scope_of(denoiser, target)
        assert all(name.startswith(f"{scope}.") for name in target.touched)
        assert type(denoiser.get_submodule(scope)).forward is not torch.nn.ModuleList.forward


def test_arguments_survive_their_folding():
    tensors = {"0": torch.ones(2), "1": torch.zeros(1)}
    names = {id(tensor): name for name, tensor in tensors.items()}
    value = [(tensors["0"], None, 1.5), {"a": [tensors["1"], True], "b": "text"}]
    folded = fold(value, lambda tensor: {"tensor": names[id(tensor)], "moves": True})
    again = unfold(folded, tensors)
    assert again[0][0] is tensors["0"] and again[1]["a"][0] is tensors["1"]
    assert (again[0][1:], again[1]["a"][1], again[1]["b"]) == ((None, 1.5), True, "text")
    with pytest.raises(SpecError, match="one of this pipeline is a set"):
        fold([{1}], lambda tensor: tensor)
