"""PyTorch's side: diffusers, peft and transformers on the cases of cases.json; see run.py.

It takes the options of our side and prints the same lines. Results of checked cases are written twice:
as computed (bf16 on a GPU), and as `ref.*` in f32 by the same weights.
"""
import argparse, contextlib, json, os, pathlib, statistics, time, traceback
import torch
# Named one by one, since diffusers and transformers import their parts when these are asked for: what is not there is told now.
from diffusers import (AutoencoderKLCogVideoX, AutoencoderKLLTXVideo, CogVideoXDDIMScheduler, CogVideoXTransformer3DModel,
                       FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel)
from diffusers.models.embeddings import get_3d_rotary_pos_embed
from diffusers.training_utils import cast_training_params
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel
import hashed

HERE = pathlib.Path(__file__).parent
TABLE = json.loads((HERE / "cases.json").read_text())
REPEATS = (3, 20)
CLASSES = {found.__name__: found for found in (CogVideoXTransformer3DModel, LTXVideoTransformer3DModel, CogVideoXDDIMScheduler, FlowMatchEulerDiscreteScheduler)}
TARGETS = {"qkvo": ["to_q", "to_k", "to_v", "to_out.0"],
           "all_linear_blocks": ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"]}


class Side:
    def __init__(self, device, size, out, budget=4.0, compiled=True):
        self.budget = budget
        self.device, self.size, self.out = torch.device(device), size, pathlib.Path(out)
        self.out.mkdir(parents=True, exist_ok=True)
        self.gpu = self.device.type == "cuda"
        if self.gpu:
            # Or what names no device would be about the first one.
            torch.cuda.set_device(self.device)
        self.compiled = compiled and self.gpu
        self.dtype = torch.bfloat16 if self.gpu else torch.float32
        self.key = self.model = None

    # Models and inputs.

    def build(self, case, part):
        """The part of a case's model, its parameters hashed."""
        spec = TABLE["models"][case["model"]]
        cog = case["model"].startswith("cog")
        config = spec[self.size][part]
        with torch.device(self.device):
            torch.set_default_dtype(self.dtype)
            try:
                if part == "text_encoder":
                    model = T5EncoderModel(T5Config(**config))
                elif part == "vae":
                    model = (AutoencoderKLCogVideoX if cog else AutoencoderKLLTXVideo)(**config)
                else:
                    model = CLASSES[spec["class"]](**config)
            finally:
                torch.set_default_dtype(torch.float32)
        return hashed.fill(model.eval().requires_grad_(False).to(self.dtype))

    def load(self, case, part, fresh=False):
        key = (case["model"], part)
        if fresh or self.key != key:
            self.key = self.model = None
            self.clean()
            self.model = self.build(case, part)
            self.key = None if fresh else key
        return self.model

    def clean(self):
        torch._dynamo.reset()
        if self.gpu:
            torch.cuda.empty_cache()

    def latents(self, case):
        time, space = TABLE["models"][case["model"]]["compression"]
        frames, height, width = case[self.size]
        return (frames - 1) // time + 1, height // space, width // space

    def spec(self, case):
        return TABLE["models"][case["model"]][self.size]

    def hashed(self, name, *shape):
        return hashed.tensor(name, list(shape), self.device)

    def inputs(self, case):
        """`[B, C, f, h, w]` and the rest, in f32, as our side has them."""
        spec, batch = self.spec(case), case["batch"]
        frames, height, width = self.latents(case)
        if case["model"].startswith("cog"):
            frames += frames % spec["transformer"]["patch_size_t"]
        channels = spec["latent_channels"]
        return dict(latents=self.hashed("latents", batch, channels, frames, height, width),
                    image=self.hashed("image", batch, channels, 1, height, width),
                    text=self.hashed("text", batch, *spec["text"]),
                    t=torch.tensor([float(37 + 100 * i % 900) for i in range(batch)], device=self.device))

    def predict(self, case, model, latents, image, text, t, dtype):
        """The transformer's output for latents `[B, C, f, h, w]`, in the same order."""
        frames, height, width = latents.shape[2:]
        if case["model"].startswith("cog"):
            config = model.config
            rows = torch.zeros_like(latents)
            rows[:, :, :1] = image
            hidden = torch.cat([latents, rows], 1).transpose(1, 2).to(dtype)
            patch, patch_t = config.patch_size, config.patch_size_t
            rotary = get_3d_rotary_pos_embed(
                config.attention_head_dim, None, (height // patch, width // patch), (frames + patch_t - 1) // patch_t,
                grid_type="slice", max_size=(config.sample_height // patch, config.sample_width // patch), device=latents.device)
            ofs = torch.full((1,), 2.0, device=latents.device, dtype=dtype)
            out = model(hidden, text.to(dtype), t, ofs=ofs, image_rotary_emb=rotary, return_dict=False)[0]
            return out.transpose(1, 2)
        per_frame = t[:, None].repeat(1, frames)
        per_frame[:, 0] = 0
        out = model(hidden_states=latents.permute(0, 2, 3, 4, 1).flatten(1, 3).to(dtype), encoder_hidden_states=text.to(dtype),
                    timestep=per_frame.repeat_interleave(height * width, dim=1), encoder_attention_mask=torch.ones(text.shape[:2], device=text.device),
                    num_frames=frames, height=height, width=width, rope_interpolation_scale=(8 / 25, 32, 32), return_dict=False)[0]
        return out.unflatten(1, (frames, height, width)).permute(0, 4, 1, 2, 3)

    # Measuring.

    def sync(self):
        if self.gpu:
            torch.cuda.synchronize()

    def phase(self, name):
        """What is told from here on, until the next one, is of this."""
        print(json.dumps(dict(event="phase", phase=name)), flush=True)

    def measure(self, name, call):
        self.phase(f"{name}, first call")
        if self.gpu:
            torch.cuda.reset_peak_memory_stats()

        def once():
            start = time.perf_counter()
            call()
            self.sync()
            return time.perf_counter() - start

        first, times = once(), []
        once()
        self.phase(f"{name}, repeated")
        start = time.perf_counter()
        while len(times) < REPEATS[0] or len(times) < REPEATS[1] and time.perf_counter() - start < self.budget:
            times.append(once())
        self.phase("rest")
        peak, held = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if self.gpu else (None, None)
        return dict(first_secs=first, secs=statistics.median(times), peak=peak, most_reserved=held)

    def variants(self, calls):
        """Figures by name; one that fails leaves the others."""
        found = {}
        for name, call in calls.items():
            try:
                found[name] = self.measure(name, call)
            except Exception as error:
                self.phase("rest")
                found[name] = dict(error=f"{type(error).__name__}: {error}".splitlines()[0][:200])
            self.clean()
        return found

    def write(self, case, found, reference):
        tensors = {**found, **{f"ref.{name}": value for name, value in reference.items()}}
        path = self.out / f"{case['name'].replace(' ', '_')}.peer.safetensors"
        save_file({name: value.detach().float().contiguous().cpu() for name, value in tensors.items()}, f"{path}.part")
        # Whole or not at all, whenever this is stopped.
        os.replace(f"{path}.part", path)

    # Kinds.

    def simple(self, case, part, name, run, compiled=None):
        """A forward pass `run(model, dtype)` of a part, plain and compiled, and in f32."""
        model = self.load(case, part)
        with torch.no_grad():
            plain = dict(plain=lambda: run(model, self.dtype))
            figures = self.variants(plain)
            found = {name: run(model, self.dtype)}
            if compiled:
                compiled(model)
                figures |= self.variants(dict(compiled=lambda: run(model, self.dtype)))
            if case.get("check"):
                # Weights of bf16 are exact in f32, so this is the same model computed better.
                model = self.load(case, part).float() if not compiled else self.load(case, part, fresh=True).float()
                self.write(case, found, {name: run(model, torch.float32)})
                model.to(self.dtype)
        return dict(variants=figures)

    def forward(self, case):
        given = self.inputs(case)
        run = lambda model, dtype: self.predict(case, model, **given, dtype=dtype)
        return self.simple(case, "transformer", "out", run, self.compile if self.compiled else None)

    @staticmethod
    def compile(model):
        """Compiles the block that all layers repeat; diffusers names it for some models only."""
        for block in model.transformer_blocks:
            block.compile()

    def sample(self, case):
        spec = TABLE["models"][case["model"]]
        config = {key: value for key, value in spec["scheduler"].items() if key != "_class_name"}
        scheduler = CLASSES[spec["scheduler"]["_class_name"]](**config)
        frames, height, width = self.latents(case)
        channels, (tokens, dim) = self.spec(case)["latent_channels"], self.spec(case)["text"]
        image, text = self.hashed("image", 1, channels, 1, height, width), self.hashed("text", 1, tokens, dim)
        steps = case["steps"]
        draw = lambda *shape: torch.randn(shape, generator=torch.Generator().manual_seed(42)).to(self.device)

        def cog(model, dtype):
            padded = frames + frames % 2
            latents = draw(1, padded, channels, height, width).transpose(1, 2)
            scheduler.set_timesteps(steps)
            for t in scheduler.timesteps:
                v = self.predict(case, model, latents, image, text, t[None].to(self.device), dtype).float()
                latents = scheduler.step(v, t, latents, return_dict=False)[0]
            return latents[:, :, padded - frames:]

        def ltx(model, dtype):
            latents = torch.cat([image, draw(1, channels, frames, height, width)[:, :, 1:]], 2)
            c = scheduler.config
            slope = (c.max_shift - c.base_shift) / (c.max_image_seq_len - c.base_image_seq_len)
            mu = frames * height * width * slope + c.base_shift - slope * c.base_image_seq_len
            scheduler.set_timesteps(sigmas=[1 - i / steps for i in range(steps)], mu=mu)
            for t in scheduler.timesteps:
                v = self.predict(case, model, latents, image, text, t[None].to(self.device), dtype).float()
                new = scheduler.step(v[:, :, 1:], t, latents[:, :, 1:], return_dict=False)[0]
                latents = torch.cat([image, new], 2)
            return latents

        return self.simple(case, "transformer", "latents", cog if case["model"].startswith("cog") else ltx)

    def encode(self, case):
        video = self.hashed("video", case["batch"], 3, *case[self.size]) * 0.5
        return self.simple(case, "vae", "mean", lambda vae, dtype: vae.encode(video.to(dtype)).latent_dist.mean)

    def decode(self, case):
        latents = self.hashed("latents", case["batch"], self.spec(case)["latent_channels"], *self.latents(case))
        return self.simple(case, "vae", "video", lambda vae, dtype: vae.decode(latents.to(dtype), return_dict=False)[0])

    def text(self, case):
        spec = self.spec(case)
        ids = hashed.ids("ids", spec["text"][0], spec["text_encoder"]["vocab_size"], self.device)[None]
        return self.simple(case, "text_encoder", "hidden", lambda model, dtype: model(ids).last_hidden_state)

    def adapted(self, case):
        """A model of its own with an adapter in f32, as diffusers' trainers have it."""
        model = self.load(case, "transformer", fresh=True)
        rank = 4 if self.size == "tiny" else case["rank"]
        model.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS[case["targets"]]))
        cast_training_params(model, torch.float32)
        return model, self.set_factors(model)

    @torch.no_grad()
    def set_factors(self, model):
        factors = {name.replace(".default.weight", ".weight"): param for name, param in model.named_parameters() if param.requires_grad}
        for name, param in factors.items():
            shape = list(param.shape)
            param.copy_(hashed.values(name, shape, *hashed.limits(name, shape), param.device))
        return factors

    def loss(self, case, model, given, target, dtype):
        mixed = torch.autocast("cuda", torch.bfloat16) if dtype == torch.bfloat16 else contextlib.nullcontext()
        with mixed:
            out = self.predict(case, model, **given, dtype=dtype)
        return ((out.float() - target) ** 2).mean()

    def trainer(self, case, model, factors, given, target):
        params = list(factors.values())
        adam = torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.95), weight_decay=1e-3, fused=self.gpu)

        def step():
            adam.zero_grad(set_to_none=True)
            loss = self.loss(case, model, given, target, self.dtype)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(params, 1.0)
            adam.step()
            return loss.item()
        return step

    def gradients(self, case, model, factors, given, target, dtype):
        loss = self.loss(case, model, given, target, dtype)
        found = torch.autograd.grad(loss, list(factors.values()))
        return dict(zip(factors, found)), loss.item()

    def train(self, case):
        given = self.inputs(case)
        target = self.hashed("target", *given["latents"].shape)
        model, factors = self.adapted(case)
        model.train()
        model.enable_gradient_checkpointing()
        self.phase("recompute, gradients")
        found, loss = self.gradients(case, model, factors, given, target, self.dtype)
        figures = self.variants(dict(recompute=self.trainer(case, model, factors, given, target)))
        model.disable_gradient_checkpointing()
        figures |= self.variants(dict(plain=self.trainer(case, model, factors, given, target)))
        if case.get("check"):
            self.set_factors(model)
            model.float().enable_gradient_checkpointing()
            reference, _ = self.gradients(case, model, factors, given, target, torch.float32)
            self.write(case, found, reference)
            del reference
        del found
        if self.compiled:
            del model, factors
            model, factors = self.adapted(case)
            self.compile(model.train())
            figures |= self.variants(dict(compiled=self.trainer(case, model, factors, given, target)))
        return dict(variants=figures, loss=loss)

    def soak(self, case):
        return dict(variants={})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", default="tiny", choices=["tiny", "full"])
    parser.add_argument("--out", default=".")
    parser.add_argument("--cases")
    parser.add_argument("--budget", type=float, default=4.0)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    args = parser.parse_args()
    side = Side(args.device, args.size, args.out, args.budget, not args.no_compile)
    # The reference in f32 is no reference in TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for case in TABLE["cases"]:
        if args.cases and case["name"] not in args.cases.split(","):
            continue
        print(json.dumps(dict(case=case["name"], event="start")), flush=True)
        start = time.perf_counter()
        try:
            figures = getattr(side, case["kind"])(case)
        except Exception as error:
            traceback.print_exc()
            side.key = side.model = None
            figures = dict(error=f"{type(error).__name__}: {error}".splitlines()[0])
        side.clean()
        print(json.dumps(dict(case=case["name"], event="end", secs=time.perf_counter() - start, figures=figures)), flush=True)


if __name__ == "__main__":
    main()
