"""The zoo's evaluator, an open_clip model, as a folder of transformers' CLIPModel: the same network."""

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

OPEN = Path(__file__).parents[1] / "zoo/emoji-clip"
NAMES = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
INSIDE = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}


def converted(folder: Path) -> Path:
    """Write the evaluator into a folder, with tokenizer and image processor."""
    config = json.loads((OPEN / "open_clip_config.json").read_text())["model_cfg"]
    tokenizer = AutoTokenizer.from_pretrained(OPEN)
    seen, text = config["vision_cfg"], config["text_cfg"]
    made = CLIPModel(
        CLIPConfig(
            projection_dim=config["embed_dim"],
            vision_config={
                **sized(seen["width"], seen["layers"], seen["width"] // seen["head_width"]),
                "image_size": seen["image_size"],
                "patch_size": seen["patch_size"],
            },
            text_config={
                **sized(text["width"], text["layers"], text["heads"]),
                "vocab_size": text["vocab_size"],
                "max_position_embeddings": text["context_length"],
                "bos_token_id": tokenizer.bos_token_id,
                "eos_token_id": tokenizer.eos_token_id,
            },
        )
    )
    found: dict[str, Tensor] = {}
    for name, tensor in load_file(OPEN / "open_clip_model.safetensors").items():
        found |= renamed(name, tensor)
    made.load_state_dict(found)
    made.save_pretrained(folder)
    side = {"height": seen["image_size"], "width": seen["image_size"]}
    half = [0.5] * 3
    image = CLIPImageProcessor(size=side, do_center_crop=False, image_mean=half, image_std=half)
    CLIPProcessor(image_processor=image, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def sized(width: int, layers: int, heads: int) -> dict[str, int | str]:
    kinds: dict[str, int | str] = {"hidden_size": width, "intermediate_size": 4 * width}
    return kinds | {"num_hidden_layers": layers, "num_attention_heads": heads, "hidden_act": "gelu"}


def renamed(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor under transformers' names; queries, keys and values apart."""
    if name in ("text_projection", "visual.proj"):
        return {f"{'text' if name[0] == 't' else 'visual'}_projection.weight": tensor.T.contiguous()}
    stem, _, last = name.rpartition(".")
    if "resblocks" not in name:
        return {NAMES.get(name) or f"{NAMES[stem]}.{last}": tensor}
    tower, _, rest = name.partition("transformer.resblocks.")
    number, _, rest = rest.partition(".")
    at = f"{'vision' if tower else 'text'}_model.encoder.layers.{number}"
    if rest.startswith("attn.in_proj_"):
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return {f"{at}.self_attn.{part}_proj.{rest.rpartition('_')[2]}": value.clone() for part, value in parts}
    if rest.startswith("attn.out_proj."):
        return {f"{at}.self_attn.out_proj.{last}": tensor}
    return {f"{at}.{INSIDE[rest.rpartition('.')[0]]}.{last}": tensor}
