"""The images of a sweep that a report shows: some captions of every configuration, small enough for one file."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from eval.analysis import shown
from eval.analysis.analysis import Analysis
from eval.analysis.groups import Setting, about
from eval.images.opening import open_image
from eval.report.words import line
from eval.results import CellResult
from eval.sweep.cells import decimal
from obsdiff.captions.prompts import file_name

BUDGET = 3_500_000
"""bytes of all images, as they stand in the page"""
MOST, LEAST = 24, 3
"""captions"""
SIDE = 256
"""pixels that an image is made smaller to"""
QUALITY = 80
"""of WebP, for images that are made smaller; others lose nothing"""
DENSE = "dense"
KINDS = ("worst", "median", "best")
Shown = tuple[Setting, str, float, CellResult]
"""setting, label, sparsity, and the first seed's record"""


def gallery(analysis: Analysis, folders: Mapping[str, Path]) -> dict[str, Any] | None:
    """Images, captions and numbers of the first seed, for report.js; None where there are no images.

    Args:
        folders: cell path → its folder.
    """
    alike: dict[tuple[str, ...], list[Shown]] = {}
    for setting in analysis.settings:
        for label, sparsity, group in [(DENSE, 0.0, setting.dense), *setting.pruned]:
            if group and (folders[group[0].cell.path] / "images").is_dir():
                alike.setdefault(tuple(group[0].prompts), []).append((setting, label, sparsity, group[0]))
    images: dict[str, list[str]] = {}
    settings = []
    for found in alike.values():
        records = {record.cell.path: record for *_, record in found}
        name, places = chosen([one[3] for one in found if one[1] != DENSE] or [one[3] for one in found])
        size = len(encoded(open_at(folders, found[0][3], places[0][0])))
        kept = spread(places, max(LEAST, min(MOST, BUDGET // len(alike) // (size * len(records)))))
        for path, record in records.items():
            images[path] = [encoded(open_at(folders, record, place)) for place, _ in kept]
        captions = [{"text": line(found[0][3].captions[place]), "kind": kind} for place, kind in kept]
        metric = about([record for *_, record in found], name) if name else None
        settings += [
            {
                "name": setting.name,
                "metric": metric.title if metric else "",
                "captions": captions,
                "cells": [entry(one, name, kept) for one in found if one[0] is setting],
            }
            for setting in analysis.settings
            if any(one[0] is setting for one in found)
        ]
    return {"settings": settings, "images": images} if settings else None


def entry(one: Shown, name: str | None, kept: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """A cell as report.js reads it; the number under each image is that of its caption."""
    _, label, sparsity, record = one
    metric = record.metrics.get(name or "")
    numbers = []
    if metric and metric.samples and (label != DENSE or name in shown.names("quality")):
        numbers = [f"{metric.samples[place]:.3g} {metric.unit}" for place, _ in kept]
    return {"label": label, "sparsity": decimal(sparsity), "path": record.cell.path, "numbers": numbers}


def chosen(records: Sequence[CellResult]) -> tuple[str | None, list[tuple[int, str]]]:
    """The metric that ranks captions, and all captions (place, kind), from the worst on, by its mean over cells.

    The first metric of similarity to the dense model that has a number per prompt; without one captions stay in order.
    """
    for name in (*shown.names("similarity"), *shown.names("quality")):
        found = [m for record in records if (m := record.metrics.get(name)) and m.samples]
        if found and found[0].higher_is_better is not None:
            columns = zip(*(metric.samples for metric in found if metric.samples), strict=True)
            means = [sum(column) / len(column) for column in columns]
            order = sorted(range(len(means)), key=means.__getitem__, reverse=not found[0].higher_is_better)
            third = len(order) / len(KINDS)
            return name, [(place, KINDS[min(int(i / third), 2)]) for i, place in enumerate(order)]
    return None, [(place, "") for place in range(len(records[0].prompts))]


def spread(places: Sequence[tuple[int, str]], count: int) -> list[tuple[int, str]]:
    """Of captions from the worst on: the worst, those around the median and the best, an equal number of each."""
    if len(places) <= count or not places[0][1]:
        return list(places[:count])
    third, middle = max(1, count // 3), len(places) // 2
    around = places[middle - third // 2 : middle - third // 2 + third]
    parts = zip((places[:third], around, places[-third:]), KINDS, strict=True)
    return [(place, kind) for part, kind in parts for place, _ in part]


def open_at(folders: Mapping[str, Path], record: CellResult, place: int) -> Image.Image:
    return open_image(folders[record.cell.path] / "images" / f"{file_name(record.prompts[place])}.png")


def encoded(image: Image.Image) -> str:
    """A WebP file as a data URI."""
    large = max(image.size) > SIDE
    if large:
        image = image.copy()
        image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = BytesIO()
    image.save(file, "WEBP", **({"quality": QUALITY} if large else {"lossless": True, "quality": 100}))
    return f"data:image/webp;base64,{b64encode(file.getvalue()).decode()}"
