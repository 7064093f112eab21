"""What a spec prunes in a denoiser, found out from its layers' shapes alone: targets, sparsities, packages, reach."""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any

from torch import nn

from obsdiff import matrices, models
from obsdiff import packages as module_packages
from obsdiff.errors import LayerError, SpecError
from obsdiff.packages import Group, Unit, split
from obsdiff.sites import Site
from obsdiff.solver.statistics import STATISTICS
from obsdiff.spec import PruneSpec


@dataclass(frozen=True)
class Target:
    """What is pruned from one calibration: a unit of layers, or the consumers of sites.

    Attributes:
        unit: groups of layers, each with an input that is calibrated.
        sites: heads or neurons to remove, several where they share a consumer; none where weights become zeros.
    """

    unit: Unit
    sites: tuple[Site, ...] = ()

    @property
    def layers(self) -> list[str]:
        """The layers whose columns lose weights."""
        return [name for group in self.unit for name in group]

    @property
    def touched(self) -> list[str]:
        """All layers that change, those that make removed channels included."""
        return list(dict.fromkeys([*self.layers, *(name for site in self.sites for name in site.layers)]))


def matches(name: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in names)


def find(family: ModuleType, denoiser: nn.Module, spec: PruneSpec) -> list[Target]:
    """The targets of a spec in order of execution, those that it excludes left out.

    Raises:
        LayerError: a layer does not fit the pattern.
        SpecError: a layer-name pattern names none, or nothing is left.
    """
    pattern = spec.resolved
    if pattern.structured:
        everything = site_targets(wanted_sites(family, denoiser, spec))
    else:
        if spec.convolutions:
            models.require_convolutions(family.TRAITS)
        everything = [Target(unit) for unit in models.units(family, denoiser, spec.convolutions)]
    every_layer = [name for target in everything for name in target.layers]
    for key, given in (("exclude", spec.exclude), ("layer_sparsity", tuple(spec.layer_sparsity))):
        for one in given:
            if not any(matches(name, [one]) for name in every_layer):
                raise SpecError(f"{key}: {one!r} matches no layer; there are {every_layer[0]} … {every_layer[-1]}")
    found = []
    for target in everything:
        if target.sites:
            keep = not any(matches(name, spec.exclude) for name in target.layers)
            found += [target] if keep else []
            continue
        groups = (tuple(n for n in group if fits(denoiser, n, spec)) for group in target.unit)
        if unit := tuple(group for group in groups if group):
            found.append(Target(unit))
    if not found:
        raise SpecError(f"exclude: {spec.exclude!r} leaves no layer to prune")
    if spec.sequential and not pattern.structured:
        return one_by_one(family, denoiser, found, spec.convolutions)
    return found


def narrowed(found: Sequence[Target], layers: Collection[str]) -> tuple[list[Target], dict[str, int]]:
    """The targets with only some of their layers, and the names of the others as reach() has them."""
    units = (tuple(tuple(name for name in group if name in layers) for group in target.unit) for target in found)
    left = Counter(starred(name) for target in found for name in target.layers if name not in layers)
    return [Target(tuple(filter(None, unit))) for unit in units if any(unit)], dict(left)


def wanted_sites(family: Any, denoiser: nn.Module, spec: PruneSpec) -> list[Site]:
    """The heads or neurons that a pattern removes, in order of execution.

    Raises:
        SpecError: there are none of a kind, or what was found of some in a pipeline without a file is not understood.
    """
    kinds = spec.resolved.traits.removes
    found = [site for site in family.sites(denoiser) if site.kind in kinds]
    text = f"pattern: {spec.pattern!r} removes {' and '.join(kinds)}, and of this {type(denoiser).__name__}"
    known = [kind for kind in kinds if kind in {site.kind for site in found}]
    other = f"{known[0]}, unstructured or N:M" if known and len(known) < len(kinds) else "unstructured or N:M"
    unknown = {
        name: one.why
        for name, one in getattr(family, "unknown", {}).items()
        if one.kind in kinds and not matches(name, spec.exclude)
    }
    if unknown:
        name, why = next(iter(unknown.items()))
        more = f" (and {len(unknown) - 1} more)" if len(unknown) > 1 else ""
        raise SpecError(
            f"{text} those of {name}{more} are not understood: {why}; give {other}, such as 2:4, or exclude the layer"
        )
    if len(known) < len(kinds):
        missing = " or ".join(kind for kind in kinds if kind not in known)
        raise SpecError(f"{text} no {missing} are known; give {other}, such as 2:4")
    return found


def one_by_one(family: ModuleType, denoiser: nn.Module, found: Sequence[Target], convolutions: bool) -> list[Target]:
    """One target per group, in the order in which the groups are called."""
    called = models.groups(family, denoiser, convolutions)
    parts = {group[0]: Target((group,)) for target in found for group in target.unit}
    order = {name: i for i, group in enumerate(called) for name in group}
    return [parts[name] for name in sorted(parts, key=order.__getitem__)]


def groups_of(package: Sequence[Target]) -> list[Group]:
    """All groups of a package's targets."""
    return [group for target in package for group in target.unit]


def runs(spec: PruneSpec, cuts: Sequence[Sequence[Target]]) -> int:
    """How many times all calibration prompts go through the denoiser."""
    return 0 if not spec.statistic else 2 if spec.sequential else len(cuts)


def site_targets(sites: Sequence[Site]) -> list[Target]:
    """One target per site; sites that share a consumer make one."""
    found: list[Target] = []
    for site in sites:
        unit = tuple((stream.consumer.layer,) for stream in site.streams)
        if found and found[-1].unit == unit:
            found[-1] = Target(unit, (*found[-1].sites, site))
        else:
            found.append(Target(unit, (site,)))
    return found


def fits(denoiser: nn.Module, name: str, spec: PruneSpec) -> bool:
    """Whether a layer is pruned; LayerError where its width is not what N:M needs."""
    if matches(name, spec.exclude):
        return False
    (_, columns), multiple = models.shape(denoiser, name), spec.resolved.multiple
    if columns % multiple == 0:
        return True
    if spec.indivisible == "exclude":
        return False
    raise LayerError(
        f"{name}: its {columns} columns are not a multiple of {multiple}, as {spec.pattern} needs; "
        "leave such layers dense with indivisible: exclude, or name it in exclude"
    )


def sparsity_of(target_layers: Sequence[str], spec: PruneSpec) -> float:
    """The sparsity that the spec's table gives layers that are pruned together, else the spec's own."""
    for pattern, value in spec.layer_sparsity.items():
        if any(matches(name, [pattern]) for name in target_layers):
            return value
    return spec.amount


def removed_groups(site: Site, sparsity: float) -> int:
    """round(groups · sparsity), as in the official code; SpecError where nothing would be left."""
    count = round(site.groups * sparsity)
    if count >= site.groups:
        where = site.streams[0].consumer.layer
        raise SpecError(f"sparsity: {sparsity:g} leaves none of the {site.groups} {site.kind} of {where}")
    return count


def unit_bytes(denoiser: nn.Module, target: Target, kind: str | None) -> int:
    """Bytes of the statistics that a target needs at once."""
    if kind is None:
        return 0
    columns = (models.shape(denoiser, group[0])[1] for group in target.unit)
    return sum(STATISTICS[kind].bytes(count) for count in columns)


def package_bytes(denoiser: nn.Module, package: Sequence[Target], kind: str | None) -> int:
    """Bytes of all statistics of a package."""
    return sum(unit_bytes(denoiser, target, kind) for target in package)


def cut(denoiser: nn.Module, targets: Sequence[Target], spec: PruneSpec) -> list[list[Target]]:
    """The targets in module packages."""
    sizes = [unit_bytes(denoiser, target, spec.statistic) for target in targets]
    try:
        assert spec.packages is not None
        pieces = split(sizes, spec.packages if spec.statistic else 1)
    except ValueError as error:
        problem, i = error.args
        raise SpecError(f"packages: {spec.packages!r}: {problem}, {', '.join(targets[i].layers)}") from None
    return [[targets[i] for i in piece] for piece in pieces]


def reach(family: ModuleType, denoiser: nn.Module, convolutions: bool = False) -> tuple[float, dict[str, int]]:
    """How much of a denoiser its family can prune, and which linear layers and 1×1 convolutions it leaves dense.

    Args:
        convolutions: as PruneSpec has it.

    Returns:
        Weights of prunable layers over all parameters of the denoiser; and the names of the other layers, block
        numbers written as `*`, each with how many layers have it.
    """
    inside = module_packages.layers(models.units(family, denoiser, convolutions))
    weights = sum(models.linear(denoiser, name).weight.numel() for name in inside)
    every = (name for name, module in denoiser.named_modules() if matrices.is_layer(module))
    left = Counter(starred(name) for name in every if name not in set(inside))
    return weights / sum(p.numel() for p in denoiser.parameters()), dict(left)


def starred(name: str) -> str:
    """A layer's name with `*` for numbers."""
    return re.sub(r"\b\d+\b", "*", name)


def describe_reach(share: float, left_dense: Mapping[str, int]) -> str:
    """reach() as one line."""
    names = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in left_dense.items())
    dense = f"; layers left dense: {names}" if names else "; no layer is left dense"
    return f"{share:.1%} of the denoiser's parameters can be pruned{dense}"
