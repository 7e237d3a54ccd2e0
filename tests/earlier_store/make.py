"""Makes the store beside this file with the xadapt that is installed: that of commit fa1ea8e, before seals on studies.

Run it as `python make.py FOLDER` in a checkout of that commit. It writes FOLDER/tiny, an untrained XLM-R of one layer,
FOLDER/small.yaml, and FOLDER/store with what the commands in COMMANDS leave there.
"""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

COMMANDS = (
    "run small.yaml --store store",
    "run small.yaml --store store --set name=second --set seed=1 --set intermediate=[mnli] --set regimes.adapter.compositions=[none]",
    "train-intermediate --task qqp --regime lora --lora-r 2 --backbone tiny --data embedded --max-steps 1 --dtype float32 "
    "--per-device-train-batch-size 4 --max-train-samples 8 --max-eval-samples 4 --store store",
)
RECIPE = """\
name: small
backbone: tiny
data: embedded
intermediate: [mnli, qqp]
targets: [xnli, tatoeba]
languages: [de, sw]
regimes:
  adapter: {compositions: [none, stack, average], reduction_factor: 8}
training: {dtype: float32, max_steps: 1, per_device_train_batch_size: 4}
max_train_samples: 8
max_eval_samples: 4
max_predict_samples: 4
"""


def write_backbone(folder: Path) -> None:
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizerFast

    from xadapt.data.suite import suite_rows

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = [row["premise"] for lang in ("en", "de", "sw") for row in suite_rows("xnli", lang, "validation", limit=30)]
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=160, special_tokens=specials, show_progress=False)
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = XLMRobertaTokenizerFast(tokenizer_object=tokenizer, model_max_length=126)
    fast.save_pretrained(folder)
    config = XLMRobertaConfig(
        vocab_size=len(fast), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=130, type_vocab_size=1,
    )  # fmt: skip
    torch.manual_seed(0)
    XLMRobertaModel(config, add_pooling_layer=False).save_pretrained(folder)


def main(folder: Path) -> None:
    from xadapt_cli.app import main as xadapt

    folder.mkdir(parents=True)
    os.chdir(folder)
    write_backbone(Path("tiny"))
    Path("small.yaml").write_text(RECIPE)
    for command in COMMANDS:
        sys.argv = ["xadapt", *command.split()]
        with suppress(SystemExit):  # what failed is seen in the store
            xadapt()
    shutil.rmtree("store/reports")
    for lock in Path("store").rglob("*.lock"):
        lock.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
