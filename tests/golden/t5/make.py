"""A tiny random T5 encoder and a small SentencePiece model with what transformers makes of them.

Writes the other files of this folder. Made with transformers 5.24.0, torch 2.15.0, sentencepiece 0.2.3.
"""
import json
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
import torch
from safetensors.torch import save_file
from transformers import T5Config, T5EncoderModel, T5Tokenizer
from transformers.models.t5.modeling_t5 import T5Attention

here = Path(__file__).parent
torch.manual_seed(11)

config = T5Config(vocab_size=60, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=3, feed_forward_proj="gated-gelu",
                  dropout_rate=0.0)
model = T5EncoderModel(config).eval()
with torch.no_grad():
    for p in model.parameters():
        p.add_(torch.randn_like(p) * 0.05)
    ids = torch.randint(0, 60, (2, 21))
    hidden = model(ids).last_hidden_state
    # As a prompt of nine tokens, though the ids behind them are no padding.
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    hidden_masked = model(ids, attention_mask=mask).last_hidden_state
distances = torch.arange(-700, 701)
buckets = T5Attention._relative_position_bucket(distances, bidirectional=True, num_buckets=32, max_distance=128)
weights = {k: v.contiguous() for k, v in model.state_dict().items() if k != "encoder.embed_tokens.weight"}
save_file(weights, here / "model.safetensors")
save_file({"ids": ids, "hidden": hidden.contiguous(), "mask": mask, "hidden_masked": hidden_masked.contiguous(),
           "distances": distances, "buckets": buckets}, here / "expected.safetensors")
(here / "config.json").write_text(json.dumps(config.to_dict(), indent=1, sort_keys=True, default=str) + "\n")

# A few rules only, so that the file stays small; the rules of the published models have 240 kB.
(here / "rules.tsv").write_text("FB01\t66 69\n3000\t20\nFF21\t41\n9\t20\nA\t20\n41 30A\tC5\n")
text = ["a video of a thing that turns into another thing", "an image changes slowly", "the quick brown fox jumps over the lazy dog",
        "transform the input into the output"] * 30
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(text), model_prefix=str(here / "spiece"), vocab_size=70, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
    hard_vocab_limit=False, normalization_rule_tsv=str(here / "rules.tsv"), minloglevel=2)
(here / "spiece.vocab").unlink()
(here / "rules.tsv").unlink()
# The trainer notes the paths of this machine in the file; take them out.
model = sentencepiece_model_pb2.ModelProto()
model.ParseFromString((here / "spiece.model").read_bytes())
model.trainer_spec.model_prefix = "spiece"
model.normalizer_spec.normalization_rule_tsv = "rules.tsv"
(here / "spiece.model").write_bytes(model.SerializeToString())
tokenizer = T5Tokenizer.from_pretrained(here)
prompts = ["", "a video of a fox", "  two   spaces ", "\ufb01 \u2460 \u00dcnicode", "<extra_id_0> x <extra_id_99>", "zzz\nq\tw", "</s> a",
           "a</s>b", "<pad>", "\u3000x", "\u2581a", "\uff21A\u030ar", "the quick brown fox jumps over the lazy dog " * 3]
expected = [{"prompt": p, "max_length": n, "ids": tokenizer(p, padding="max_length", max_length=n, truncation=True).input_ids}
            for p in prompts for n in (1, 8, 226)]
(here / "ids.json").write_text(json.dumps(expected) + "\n")
tokenizer.backend_tokenizer.save(str(here / "tokenizer.json"))
