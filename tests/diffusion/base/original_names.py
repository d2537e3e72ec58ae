"""Tensor names of the original releases of Stable Diffusion 1, 2 and XL, for files that tests write."""

import re

import torch
from torch import Tensor

from inandout.diffusion.pipeline import Pipeline, is_xl

RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
OPEN_CLIP = {
    "embeddings.position_embedding.weight": "positional_embedding", "final_layer_norm.weight": "ln_final.weight",
    "embeddings.token_embedding.weight": "token_embedding.weight", "final_layer_norm.bias": "ln_final.bias",
    "text_projection.weight": "text_projection",
}  # fmt: skip
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_name(name: str, attending: set[str], layers: int) -> str:
    """Return the original name of a tensor of a UNet with `layers` layers a block; `attending` blocks attend."""
    module, _, kind = name.rpartition(".")
    if module in UNET:
        return f"{UNET[module]}.{kind}"
    way, rest = name.split(".", 1)
    if way == "mid_block":
        number, rest = re.fullmatch(r"(resnets.\d|attentions.0)\.(.*)", rest).groups()
        return f"middle_block.{['resnets.0', 'attentions.0', 'resnets.1'].index(number)}.{resnet_name(rest)}"
    block, what, layer, rest = re.fullmatch(r"(\d+)\.(\w+)\.(\d+)\.(.*)", rest).groups()
    first = (layers + 1) * int(block) + (way == "down_blocks")
    if what == "downsamplers":
        return f"input_blocks.{first + layers}.0.op.{kind}"
    if what == "upsamplers":
        return f"output_blocks.{first + layers}.{2 if f'{way}.{block}' in attending else 1}.{rest}"
    side = "input_blocks" if way == "down_blocks" else "output_blocks"
    return f"{side}.{first + int(layer)}.{int(what == 'attentions')}.{resnet_name(rest)}"


def resnet_name(rest: str) -> str:
    module, _, kind = rest.rpartition(".")
    return f"{RESNET.get(module, module)}.{kind}"


def vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", name)
    name = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", name)
    name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d)\.resnets", lambda found: f"up.{blocks - 1 - int(found[1])}.block", name)
    name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda found: f"up.{blocks - 1 - int(found[1])}.upsample", name)
    found = re.fullmatch(r"(\w+)\.mid_block\.attentions\.0\.(.*)\.(\w+)", name)
    return f"{found[1]}.mid.attn_1.{ATTENTION[found[2]]}.{found[3]}" if found else name


def open_clip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a text encoder with OpenCLIP's names: queries, keys and values in one tensor."""
    tensors = {"logit_scale": torch.ones(())}
    for name, value in state.items():
        short = name.removeprefix("text_model.")
        if short in OPEN_CLIP:
            tensors[OPEN_CLIP[short]] = value.T if short == "text_projection.weight" else value
        elif ".self_attn.q_proj" in short:
            joined = torch.cat([state[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")])
            tensors[open_clip_layer(short).replace("q_proj.", "in_proj_")] = joined
        elif not re.search(r"self_attn\.[kv]_proj|position_ids", short):
            tensors[open_clip_layer(short)] = value
    return tensors


def open_clip_layer(name: str) -> str:
    name = name.replace("encoder.layers.", "transformer.resblocks.").replace("self_attn", "attn")
    name = name.replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
    return name.replace("layer_norm", "ln_")


def with_original_names(pipeline: Pipeline) -> dict[str, Tensor]:
    """Return the tensors of a Stable Diffusion 1, 2 or XL with the names of its original release."""
    unet, blocks = pipeline.unet.state_dict(), len(pipeline.vae.config.block_out_channels)
    attending = {".".join(name.split(".")[:2]) for name in unet if ".attentions." in name}
    layers = pipeline.unet.config.layers_per_block
    tensors = {f"model.diffusion_model.{unet_name(name, attending, layers)}": value for name, value in unet.items()}
    for name, value in pipeline.vae.state_dict().items():
        square = ".attentions.0.to_" in name and name.endswith("weight")  # a 1x1 convolution there
        tensors[f"first_stage_model.{vae_name(name, blocks)}"] = value[..., None, None] if square else value
    text = {f"text_model.{name}": value for name, value in pipeline.text_encoder.state_dict().items()}
    if is_xl(pipeline):
        second = open_clip(pipeline.text_encoder_2.state_dict())
        tensors |= {f"conditioner.embedders.0.transformer.{name}": value for name, value in text.items()}
        tensors |= {f"conditioner.embedders.1.model.{name}": value for name, value in second.items()}
    elif pipeline.unet.config.use_linear_projection:
        tensors |= {f"cond_stage_model.model.{name}": value for name, value in open_clip(text).items()}
        tensors["cond_stage_model.model.text_projection"] = torch.ones(16, 16)
        tensors["cond_stage_model.model.transformer.resblocks.23.ln_1.weight"] = torch.ones(3)
    else:
        tensors |= {f"cond_stage_model.transformer.{name}": value for name, value in text.items()}
        tensors["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(32)[None]
    tensors["alphas_cumprod"] = torch.ones(3)
    return {name: value.clone().contiguous() for name, value in tensors.items()}
