"""Reference values of combined and merged adapters.

Usage: python make.py        (writes expected.safetensors beside itself)
Made with peft 0.21 and torch 2.11 on the CPU, in f32, on a module with two linear layers.

- `base.*`: weights of the layers
- `one`, `two` (rank 3) and `three` (rank 2): adapters as peft saves them; their alphas are in the header
- `cat.*`, `linear.*`: factors of `add_weighted_adapter` of one and two, and for `cat` also three
- `svd.*`: what `svd` of all three at rank 4 adds to each layer
- `merged.*`: weights after `merge_and_unload` of one
"""
import json
import pathlib

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

WEIGHTS = {"one": 0.75, "two": -0.5, "three": 1.25}
SETTINGS = {"one": (3, 1.5, ["to_q", "to_k"]), "two": (3, 6.0, ["to_q", "to_k"]), "three": (2, 2.0, ["to_q", "to_k"])}


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k = torch.nn.Linear(7, 9), torch.nn.Linear(7, 5)

    def forward(self, x):
        return self.to_q(x), self.to_k(x)


torch.manual_seed(3)
out, alphas = {}, {}
layers = Layers()
out |= {f"base.{k}": v.clone() for k, v in layers.state_dict().items()}
model = None
for name, (rank, alpha, targets) in SETTINGS.items():
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets)
    if model is None:
        model = get_peft_model(layers, config, adapter_name=name)
    else:
        model.add_adapter(name, config)
    alphas[name] = str(alpha)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if f".{name}." in key:
                value.normal_(std=0.3)
    out |= {f"{name}.{k}": v.clone() for k, v in get_peft_model_state_dict(model, adapter_name=name).items()}


def combined(how, names, **options):
    model.add_weighted_adapter(names, [WEIGHTS[n] for n in names], how, combination_type=how, **options)
    return get_peft_model_state_dict(model, adapter_name=how)


out |= {f"cat.{k}": v.clone() for k, v in combined("cat", ["one", "two", "three"]).items()}
out |= {f"linear.{k}": v.clone() for k, v in combined("linear", ["one", "two"]).items()}
combined("svd", ["one", "two", "three"], svd_rank=4)
for key in ["to_q", "to_k"]:
    out[f"svd.{key}"] = getattr(model.base_model.model, key).get_delta_weight("svd").detach()
model.set_adapter("one")
merged = model.merge_and_unload(adapter_names=["one"])
out |= {f"merged.{k}": v.clone() for k, v in merged.state_dict().items()}
save_file({k: v.detach().contiguous() for k, v in out.items()},
          pathlib.Path(__file__).with_name("expected.safetensors"), alphas)
print(json.dumps({k: list(v.shape) for k, v in out.items()}, indent=1))
