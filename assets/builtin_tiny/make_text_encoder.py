"""Makes the text encoder of builtin:tiny: a T5 encoder of this size, drawn at random, in bf16.

It is not trained: every task uses one constant prompt, so any fixed embedding serves. Needs torch,
transformers and safetensors; run in this folder. The seed makes the file again.
"""

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel

torch.manual_seed(7)
model = T5EncoderModel(T5Config.from_json_file("text_encoder/config.json"))
state = {
    name: tensor.detach().to(torch.bfloat16).contiguous()
    for name, tensor in model.state_dict().items()
    if name != "encoder.embed_tokens.weight"
}
save_file(state, "text_encoder/model.safetensors", metadata={"format": "pt"})
