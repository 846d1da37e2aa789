"""Adapters of pipe in diffusers, peft and ComfyUI, and theirs in pipe: each side must predict the same.

Usage: adapters.py PIPE FOLDER [MODEL], with the built binary and an empty folder to work in. MODEL is a model of
CogVideoX 1.0 or 1.5 or of LTX-Video in diffusers' layout, whose T5 has a `spiece.model`; `models.py` makes small
ones. Without it the built-in model is used, a small CogVideoX 1.5. Needs torch, diffusers and peft. Two things are
compared, and what `pipe` runs is `adapters.toml`:

- one prediction of diffusers' transformer on random input: with each exported form loaded, and with adapters
  that peft made brought into pipe, summed, exported again and merged;
- clips that `pipe` samples and decodes with those of diffusers' pipeline, from one image, prompt and seed:
  without an adapter, with ours, and with those of peft, which `pipe` has by `lora_merge` and diffusers from peft.
"""
import json
import pathlib
import subprocess
import sys
import tomllib

import numpy as np
import torch
from diffusers import (AutoencoderKLCogVideoX, CogVideoXDPMScheduler, CogVideoXImageToVideoPipeline,
                       CogVideoXTransformer3DModel, LTXConditionPipeline, LTXImageToVideoPipeline,
                       LTXVideoTransformer3DModel)
from diffusers.loaders.lora_pipeline import CogVideoXLoraLoaderMixin, LTXVideoLoraLoaderMixin
from diffusers.loaders.single_file_utils import convert_ltx_transformer_checkpoint_to_diffusers
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.pipelines.cogvideo.pipeline_cogvideox_image2video import get_resize_crop_region_for_grid
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file

binary, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
here = pathlib.Path(__file__).parent
PIPELINE = tomllib.loads((here / "adapters.toml").read_text())
ROOT = pathlib.Path(sys.argv[3]).resolve() if len(sys.argv) > 3 else here.parents[1] / "assets/builtin_tiny"


def read(file):
    return json.loads((ROOT / file).read_text())


class CogVideoX:
    """1.5, and 1.0, whose `patch_size_t` is null."""
    model, loader, theirs = CogVideoXTransformer3DModel, CogVideoXLoraLoaderMixin, ["to_q", "to_v"]

    def __init__(self, config):
        patch, dim = config["patch_size"], config["attention_head_dim"]
        trained = config["sample_height"], config["sample_width"]
        # Learned positions are of one size.
        fixed = config.get("use_learned_positional_embeddings", False)
        self.params = {"size": [8 * side for side in trained], "frames": config["sample_frames"]} if fixed else {}
        self.layers = [part for key, value in self.params.items() for part in ["--set", f"params.{key}={value}"]]
        size = trained if fixed else (8, 8)
        self.latents = torch.randn(1, 2, config["in_channels"], *size)
        self.text = torch.randn(1, config["max_text_seq_length"], config["text_embed_dim"])
        grid, base = [tuple(side // patch for side in sides) for sides in (size, trained)]
        if config.get("patch_size_t"):
            self.ofs = torch.tensor([2.0])
            self.rotary = get_3d_rotary_pos_embed(dim, None, grid, 1, grid_type="slice", max_size=base)
        else:
            self.ofs = None
            self.rotary = get_3d_rotary_pos_embed(dim, get_resize_crop_region_for_grid(grid, *base[::-1]), grid, 2)

    def predict(self, model):
        return model(hidden_states=self.latents, encoder_hidden_states=self.text, timestep=torch.tensor([500]),
                     ofs=self.ofs, image_rotary_emb=self.rotary, return_dict=False)[0]

    def original(self, name):
        return name

    def pipeline(self, transformer):
        vae = AutoencoderKLCogVideoX.from_pretrained(ROOT / "vae", torch_dtype=torch.float32)
        scheduler = CogVideoXDPMScheduler.from_pretrained(ROOT / "scheduler")
        return CogVideoXImageToVideoPipeline(None, None, vae, transformer, scheduler)

    def arguments(self, embeds):
        return {"prompt_embeds": embeds}

    def as_ours(self, sampled, shape):
        """`[F, C, H, W]`, in 1.5 with what pads the frames in front, as ours."""
        return sampled[-shape[1]:].transpose(0, 1)


class LtxVideo:
    """Up to 0.9.1 in the basic pipeline, 0.9.5, known by its VAE, in the condition pipeline."""
    model, loader = LTXVideoTransformer3DModel, LTXVideoLoraLoaderMixin
    theirs = ["to_q", "to_v", "proj_in", "linear_1", "time_embed.linear"]
    layers, params = ["--profile", "ltx_video"], PIPELINE["profiles"]["ltx_video"]

    def __init__(self, config):
        self.hidden = torch.randn(1, 12, config["in_channels"])
        self.text = torch.randn(1, 8, config["caption_channels"])
        self.timestep = torch.tensor([0.0] * 6 + [500.0] * 6)[None]

    def predict(self, model):
        return model(hidden_states=self.hidden, encoder_hidden_states=self.text, timestep=self.timestep,
                     encoder_attention_mask=torch.ones(1, 8), num_frames=2, height=2, width=3,
                     rope_interpolation_scale=(8 / 25, 32, 32), return_dict=False)[0]

    def original(self, name):
        """The name in the original checkpoint: what diffusers' own conversion takes back."""
        for ours, theirs in [("proj_in", "patchify_proj"), ("time_embed", "adaln_single"), ("norm_q", "q_norm"),
                             ("norm_k", "k_norm")]:
            name = name.replace(ours, theirs)
        return name

    def pipeline(self, transformer):
        of_095 = "LTXVideo095DownBlock3D" in read("vae/config.json")["down_block_types"]
        pipeline = LTXConditionPipeline if of_095 else LTXImageToVideoPipeline
        return pipeline.from_pretrained(ROOT, text_encoder=None, tokenizer=None, transformer=transformer)

    def arguments(self, embeds):
        return {"prompt_embeds": embeds, "prompt_attention_mask": torch.ones(embeds.shape[:2]),
                "decode_timestep": 0.05, "decode_noise_scale": 0.025}

    def as_ours(self, sampled, shape):
        """`[C, F, H, W]`, as ours; from the basic pipeline `[S, C]`, frame by frame."""
        return sampled if sampled.ndim == 4 else sampled.unflatten(0, shape[1:]).permute(3, 0, 1, 2)


torch.manual_seed(0)
CONFIG = read("transformer/config.json")
FAMILIES = {kind.model.__name__: kind for kind in (CogVideoX, LtxVideo)}
family = FAMILIES[CONFIG["_class_name"]](CONFIG)
LAYERS = [*family.layers, "--set", f"params.model={ROOT}"] if len(sys.argv) > 3 else []
PARAMS = PIPELINE["params"] | family.params
FILES = [name for name in PIPELINE["stages"] if name.startswith("theirs")]


def pipe(command, file, *args):
    layers = LAYERS if file == "adapters.toml" else []
    done = subprocess.run([binary, command, file, *args, *layers, "--cache", folder / "cache"], cwd=folder,
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"pipe {command} failed with {done.returncode}\n{done.stderr}")


def export(stage, *options, file="adapters.toml"):
    """The folder that a stage's output is exported to, with `--format` if one is given."""
    to = folder / "_".join([stage, *options])
    pipe("export", file, stage, "--to", to, *(["--format", *options] if options else []))
    return to


def diffusers_file(stage, file="adapters.toml"):
    return export(stage, "diffusers", file=file) / "pytorch_lora_weights.safetensors"


def transformer():
    return family.model.from_pretrained(ROOT / "transformer", torch_dtype=torch.float32).eval()


def predict(model):
    with torch.no_grad():
        return family.predict(model)


def with_file(path):
    """The prediction with a file loaded as diffusers loads it."""
    model = transformer()
    state, metadata = family.loader.lora_state_dict(str(path), return_lora_metadata=True)
    family.loader.load_lora_into_transformer(state, model, metadata=metadata)
    return predict(model)


def with_peft(path):
    return predict(PeftModel.from_pretrained(transformer(), str(path)))


def with_comfyui(path):
    """The prediction with a file added to the original checkpoint as ComfyUI adds it at strength 1."""
    base = {family.original(key): value for key, value in transformer().state_dict().items()}
    file = load_file(path)
    for key, a in file.items():
        if key.endswith(".lora_A.weight"):
            module = key.removesuffix(".lora_A.weight")
            alpha = file.get(f"{module}.alpha", len(a)) / len(a)
            base[f"{module.removeprefix('diffusion_model.')}.weight"] += file[f"{module}.lora_B.weight"] @ a * alpha
    model = transformer()
    model.load_state_dict(convert_ltx_transformer_checkpoint_to_diffusers(base))
    return predict(model)


good = []


def compare(what, found, wanted, tolerance=2e-5):
    error = ((found - wanted).abs().max() / wanted.abs().max()).item()
    good.append(error <= tolerance)
    print(f"{what:58} {error:.1e} of {tolerance:.0e} {'ok' if good[-1] else 'FAILED'}")


def moves(what, found):
    share = ((found - plain).abs().max() / plain.abs().max()).item()
    good.append(share > 1e-2)
    print(f"{what:58} {share:.1e}")


def make(name, **settings):
    """An adapter of peft's, saved as peft saves it, and what it predicts."""
    config = LoraConfig(**{"r": 3, "lora_alpha": 6, "target_modules": family.theirs} | settings)
    made = get_peft_model(transformer(), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for key, value in made.named_parameters():
            if "lora_" in key:
                value.normal_(std=0.05)
    made.save_pretrained(folder / "theirs" / name)
    state = load_file(folder / "theirs" / name / "adapter_model.safetensors")
    return predict(made), {key.removeprefix("base_model.model."): value for key, value in state.items()}


def save_for_diffusers(name, state, **settings):
    settings |= {"r": 3, "lora_alpha": 6, "target_modules": family.theirs}
    header = json.dumps({f"transformer.{key}": value for key, value in settings.items()})
    save_file({f"transformer.{key}": value for key, value in state.items()}, folder / f"theirs/{name}.safetensors",
              {"format": "pt", "lora_adapter_metadata": header})


def save_for_comfyui(name, state, alpha):
    """With the alpha of each module, which `alpha` gives for its name."""
    file = {f"diffusion_model.{family.original(key)}": value for key, value in state.items()}
    modules = [key.removesuffix(".lora_A.weight") for key in state if key.endswith(".lora_A.weight")]
    file |= {f"diffusion_model.{family.original(key)}.alpha": torch.tensor(alpha(key)) for key in modules}
    save_file(file, folder / f"theirs/{name}.safetensors")


folder.mkdir(parents=True, exist_ok=True)
for file in ["adapters.toml", "adapters_back.toml"]:
    (folder / file).write_text((here / file).read_text())

# An adapter that peft makes, in the forms of the field, one with the scale by the root of the rank, and one
# whose branches differ in rank and alpha.
plain = predict(transformer())
theirs, state = make("peft")
save_for_diffusers("pytorch_lora_weights", state)
save_for_comfyui("comfyui", state, lambda module: 6.0)
stabilised, state = make("rslora", use_rslora=True)
save_for_diffusers("rslora", state, use_rslora=True)
patterns = {"rank_pattern": {r".*\.1\..*to_q": 5, "to_v": 2}, "alpha_pattern": {"to_q": 2.5}}
patterned, state = make("patterns", **patterns)
save_for_diffusers("patterns", state, **patterns)
save_for_comfyui("patterns_comfyui", state, lambda module: 2.5 if module.endswith("to_q") else 6.0)

pipe("run", "adapters.toml")
ours = with_file(diffusers_file("lora"))
moves("our adapter moves the prediction by", ours)
moves("theirs moves it by", theirs)
print(f"{'modules of ours, of theirs':58} {len(load_file(diffusers_file('lora'))) // 2}, {len(state) // 2}")
compare("ours in peft, as ours in diffusers", with_peft(export("lora", "peft")), ours)
file = export("lora", "comfyui") / "comfyui_lora.safetensors"
if isinstance(family, LtxVideo):
    compare("ours for ComfyUI in the original checkpoint, as ours", with_comfyui(file), ours)
    names = {key.split(".")[1] for key in load_file(file)}
    print(f"{'names of it':58} {' '.join(sorted(names - {'transformer_blocks'}))}")
    file = export("attention", "comfyui") / "comfyui_lora.safetensors"
    compare("ours of `qkvo` for ComfyUI in diffusers, as ours", with_file(file), with_file(diffusers_file("attention")))
    compare("theirs for ComfyUI in the original checkpoint, as theirs", with_comfyui(folder / "theirs/comfyui.safetensors"),
            theirs)
else:
    compare("ours for ComfyUI in diffusers, as ours", with_file(file), ours)
    stripped = folder / "stripped.safetensors"
    save_file(load_file(file), stripped)
    compare("the same without header, at scale 1 as wrappers take it", with_file(stripped), ours)
pipe("run", "adapters_back.toml")
compare("ours for ComfyUI through pipe to diffusers, as ours", with_file(diffusers_file("back", "adapters_back.toml")), ours)
for stage in FILES:
    wanted = stabilised if "rslora" in stage else patterned if "patterns" in stage else theirs
    compare(f"{stage} through pipe, as in peft", with_file(diffusers_file(stage)), wanted)

# The weighted sum, against peft on both adapters.
both = PeftModel.from_pretrained(transformer(), str(folder / "lora_peft"), adapter_name="one")
both.load_adapter(str(folder / "theirs/peft"), adapter_name="two")
both.add_weighted_adapter(["one", "two"], [0.5, 2.0], "sum", combination_type="cat")
both.set_adapter("sum")
wanted = predict(both)
compare("0.5 ours + 2 theirs by lora_merge, as by peft", with_file(diffusers_file("both")), wanted)
merged = transformer()
[weights] = export("merged").rglob("diffusion_pytorch_model.safetensors")
merged.load_state_dict(load_file(weights))
compare("merged into the model by lora_merge, as by peft", predict(merged), wanted)

# Clips of both programs.
embeds = load_file(next(export("prompt").rglob("*.safetensors")))["embedding"][None]
pair = next(export("pairs").rglob("*.input.png"))
image = Image.open(pair)
clips = {}


def sampled(pipeline, output):
    height, width = PARAMS["size"]
    return pipeline(image=image, height=height, width=width, num_frames=PARAMS["frames"],
                    num_inference_steps=PARAMS["steps"], guidance_scale=1.0, output_type=output, return_dict=False,
                    generator=torch.Generator("cpu").manual_seed(PIPELINE["seed"]), **family.arguments(embeds))[0][0]


def compare_clips(stage, model, adapter=None):
    """The clips of a stage, and those of diffusers' pipeline with a transformer, or with a file it loads."""
    pipeline = family.pipeline(model)
    pipeline.set_progress_bar_config(disable=True)
    if adapter:
        pipeline.load_lora_weights(adapter)
    [latents] = load_file(next(export(f"clip_{stage}").rglob("*.safetensors"))).values()
    wanted = family.as_ours(sampled(pipeline, "latent"), latents.shape)
    compare(f"clip, {stage}: latents", latents, wanted, 1e-4)
    # Rounded to bytes: half a step is 2e-3.
    frame = next(export(f"frames_{stage}").rglob(pair.name.replace(".input", "")))
    frame = torch.tensor(np.asarray(Image.open(frame).convert("RGB"))).float()
    compare(f"clip, {stage}: last frame", frame, torch.tensor(sampled(pipeline, "np")[-1] * 255), 5e-3)
    clips[stage] = latents


def peft_transformer(name):
    return PeftModel.from_pretrained(transformer(), str(folder / "theirs" / name)).get_base_model()


compare_clips("plain", transformer())
compare_clips("lora", transformer(), diffusers_file("lora"))
for stage, name in [("theirs", "peft"), ("theirs_rslora", "rslora"), ("theirs_patterns", "patterns")]:
    compare_clips(stage, peft_transformer(name))
compare_clips("both", both.get_base_model())
plain = clips.pop("plain")
for stage, latents in clips.items():
    moves(f"clip, {stage}: moves latents by", latents)
sys.exit(0 if all(good) else 1)
