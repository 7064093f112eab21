"""Model cards: what each zoo model is, how it was trained, and its quality in figures, measured here.

python -m zoo.recipe.card [NAME ...]     # after training; writes zoo/*/README.md and loss.svg, all without a name
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt

from eval.image_metrics import Images, clip_score, fid, kid, recall_at_1
from eval.images.generate import generate
from eval.images.image_files import ImageFiles
from eval.networks.features import Evaluator
from eval.sweep.config import read_model
from obsdiff import PruneSpec, Sampling, Source, load_pipeline, models, prune
from obsdiff.captions.prompts import Prompt, read_prompts
from obsdiff.checkpoints.manifest import manifest_of
from zoo.recipe import autoencoder, data

GENERATORS = ("emoji-sd3", "emoji-unet", "emoji-flux")
LICENCE = (
    "Trained on Noto Emoji art (Apache-2.0, Google) as packaged by `emoji-datasource-google` 16.0.0 (MIT), captions "
    "from Unicode names. The weights are Apache-2.0 like this project."
)


def benchmark() -> list[Prompt]:
    return read_prompts(data.ZOO / "emoji-data" / "benchmark.csv")


def log_of(name: str) -> dict | None:
    """The record of a training, beside its weights or in zoo/work; None where it is gone."""
    for path in (data.ZOO / name / "training.json", data.WORK / f"{name}.json"):
        if path.exists():
            return {"device": "one to two busy CPU cores"} | json.loads(path.read_text())
    return None


def loss_curve(name: str, folder: Path, log: dict) -> None:
    figure, axis = plt.subplots(figsize=(5, 2.4), layout="constrained")
    axis.plot(*zip(*log["curve"], strict=True), color="0.2", linewidth=1)
    axis.set(xlabel="step", ylabel="loss", yscale="log", title=f"{name}, mean of 100 steps")
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(folder / "loss.svg", metadata={"Date": None})
    plt.close(figure)


def size_of(folder: Path) -> float:
    """MB of the weights."""
    return sum(p.stat().st_size for p in folder.rglob("*.safetensors")) / 1e6


def images_of(judge: Evaluator, paths: list[Path], reference: torch.Tensor, prompts: list[Prompt]) -> Images:
    features = judge.images(paths)
    captions = judge.captions([p.caption for p in prompts]) if len(prompts) == len(paths) else features
    files, texts, scale = ImageFiles(paths), tuple(p.caption for p in prompts), features.shape[1] ** 0.5
    scaled = features * scale, reference * scale
    return Images(files, files, texts, features, features, captions, *scaled, reference, judge.cache)


def evaluator_card(judge: Evaluator) -> None:
    folder, prompts = data.ZOO / "emoji-clip", benchmark()
    log = log_of("emoji-clip")
    if log is None:
        raise SystemExit("zoo/work/emoji-clip.json is missing: train it first, python -m zoo.recipe.emoji_clip")
    loss_curve("emoji-clip", folder, log)
    real = [data.ZOO / "emoji-data" / "reference" / f"{p.id}.png" for p in prompts]
    f, c = judge.images(real), judge.captions([p.caption for p in prompts])
    same = torch.arange(len(prompts))
    to_text = 100 * float(((f @ c.T).argmax(1) == same).float().mean())
    to_image = 100 * float(((c @ f.T).argmax(1) == same).float().mean())
    parameters = sum(p.numel() for p in judge.load()[0].parameters()) / 1e6
    (folder / "README.md").write_text(f"""# emoji-clip

An open_clip model (ViT of 5 layers of width 128 on 8×8 patches at 32×32; text transformer of 3 layers of width 96;
128 features) trained contrastively on {len(data.load().ids)} emoji pictures and their captions. It is the CLIP score's
model and the features of FID and KID. It shares no weights and no tokenizer with any generator.

| | |
|---|---|
| parameters, weights on disk | {parameters:.2f} M, {size_of(folder):.1f} MB (float16) |
| trained | {log["steps"]} steps of {log["batch"]} pairs ({log["pictures"]} pairs), {log["minutes"]:.0f} min on one CPU core |
| final loss (augmented, batch of {log["batch"]}) | {log["curve"][-1][1]:.3f} |
| R@1 picture → caption, real pictures of the {len(prompts)} benchmark captions | {to_text:.1f} % |
| R@1 caption → picture | {to_image:.1f} % |

![loss](loss.svg)

The benchmark pictures were in its training set: the figure says that it knows this world, not that it generalises
beyond it. Open it with `open_clip.create_model_and_transforms("local-dir:zoo/emoji-clip")`.

Recipe: `python -m zoo.recipe.emoji_clip`, seeded and resumable. {LICENCE}
""")


def training(name: str, recipe: ModuleType) -> tuple[str, str]:
    """Rows of the card's table about the training, and its loss curve; without the log, what the recipe says."""
    log, count = log_of(name), len(data.load().ids)
    if log is None:
        steps = f"{recipe.STEPS} steps of {recipe.BATCH} images ({recipe.STEPS * recipe.BATCH / count:.0f} epochs)"
        return f"| trained | {steps} by the recipe's default; the log of this run is lost |", ""
    loss_curve(name, data.ZOO / name, log)
    length = f"{log['steps']} steps of {log['batch']} pictures ({log['pictures'] / count:.0f} epochs)"
    return (
        f"| trained | {length}, {log['minutes']:.0f} min on {log['device']} |\n"
        f"| final loss ({recipe.OBJECTIVE}) | {log['curve'][-1][1]:.3f} |",
        "![loss](loss.svg)\n\n",
    )


def generator_card(name: str, judge: Evaluator) -> None:
    """The card of a generator; its recipe says in KIND, OBJECTIVE, SAMPLER and USAGE what figures do not."""
    folder, prompts, about = data.ZOO / name, benchmark(), read_model(name)
    recipe = importlib.import_module(f"zoo.recipe.{name.replace('-', '_')}")
    trained, curve = training(name, recipe)
    sampling = Sampling(**about["sampling"])
    everything = sorted((data.ZOO / "emoji-data" / "reference").glob("*.png"))
    reference = judge.images(everything)
    pipe = load_pipeline(Source(**about["source"]))
    denoiser = models.denoiser_of(pipe)
    parameters = sum(p.numel() for p in denoiser.parameters()) / 1e6
    real = data.load().pictures
    fidelity = autoencoder.psnr(
        autoencoder.decode(pipe.vae, autoencoder.encode(pipe.vae, real)), autoencoder.scaled(real)
    )
    rows = []
    with tempfile.TemporaryDirectory() as work:
        for label in ("dense", "random weights"):
            if label != "dense":
                torch.manual_seed(0)
                random = type(denoiser).from_config(denoiser.config).eval()
                pipe.register_modules(**{models.family_of(pipe).TRAITS.denoiser: random})
            out = Path(work) / label
            dense = manifest_of(
                prune(pipe, PruneSpec("dense")), "float32", hashlib.sha256(label.encode()).hexdigest(), 0
            )
            generate(pipe, dense, prompts, replace(sampling, batch_size=64), 0, out)
            seen = images_of(judge, [out / f"{p.id}.png" for p in prompts], reference, prompts)
            scores = [entry.compute(seen)[0] for entry in (recall_at_1, clip_score, fid, kid)]
            rows.append(
                f"| {label}, {len(prompts)} images | {scores[0]:.1f} | " + " | ".join(f"{s:.3g}" for s in scores[1:])
            )
    half = len(everything) // 2
    everything.sort(key=lambda path: hashlib.sha256(path.stem.encode()).digest())
    halves = images_of(judge, everything[half:], judge.images(everything[:half]), [])
    rows.append(
        f"| second half of the real images against the first, {half} each, shuffled | | | {fid.compute(halves)[0]:.3g} | {kid.compute(halves)[0]:.3g}"
    )
    table = "\n".join(f"{row} |" for row in rows)
    (folder / "README.md").write_text(f"""# {name}

A small {recipe.KIND} (`{type(pipe).__name__}`): {data.SIZE}×{data.SIZE} images of emoji on white, trained from nothing on
{len(data.load().ids)} images. Everything is of the classes and the layout of the real model, so that whatever prunes this one
prunes that.

| | |
|---|---|
| denoiser | `{type(denoiser).__name__}`, {recipe.denoiser.__doc__.rstrip(".")}, {parameters:.2f} M parameters |
| weights on disk | {size_of(folder):.1f} MB (float16), autoencoder and text encoders included |
| autoencoder | `AutoencoderKL`, factor 2, 4 channels, {fidelity:.1f} dB PSNR on the data |
{trained}

| images | R@1 % | CLIP score | FID | KID ×1000 |
|---|---|---|---|---|
{table}

{sampling.steps} {recipe.SAMPLER}; R@1 among the {len(prompts)} benchmark captions (chance {100 / len(prompts):.1f} %), FID and
KID against {len(everything)} real images, all on the features of `zoo/emoji-clip`. Benchmark captions were in the
training set (each image exists once), and their real images are among the reference: that is why the dense row
can lie below that of the halves. Calibration captions are others than benchmark captions.

{curve}{recipe.USAGE}
Recipe: `python -m zoo.recipe.autoencoder && python -m {recipe.__name__}`, seeded and resumable. {LICENCE}
""")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as cache:
        judge = Evaluator(str(data.ZOO / "emoji-clip"), Path(cache))
        for name in sys.argv[1:] or ("emoji-clip", *GENERATORS):
            evaluator_card(judge) if name == "emoji-clip" else generator_card(name, judge)
