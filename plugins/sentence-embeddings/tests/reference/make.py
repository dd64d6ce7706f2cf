"""Generates the references for the tests of this plugin with sentence-transformers.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    ../../fetch-minilm /tmp/minilm && venv/bin/python make.py /tmp/minilm

Also generates the small models in ../models, with random weights and with vocabularies learned from the sentences. Together they
cover the variants of directories of sentence-transformers.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    MPNetConfig,
    MPNetModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

from sentences import sentences

HERE = Path(__file__).parent
MODELS = HERE.parent / "models"
TEXTS = sentences()
FEW = TEXTS[:43:2] + TEXTS[-10:]
QUERY, PASSAGES = TEXTS[60], TEXTS[6:30] + TEXTS[-8:] + [TEXTS[38]]
SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, max_position_embeddings=66)


def wordpiece():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS[44:], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    names["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def unigram():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(
        vocab_size=400, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS[44:], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(bos_token="<s>", pad_token="<pad>", eos_token="</s>", sep_token="</s>", cls_token="<s>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **names)


def random(network):
    """Sets random weights that are larger than usual, so that every layer affects the result."""
    source = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            spread = 0.1 if name.endswith("bias") or "norm" in name.lower() else 0.3
            noise = torch.randn(parameter.shape, generator=source) * spread
            parameter.copy_(noise + (1 if "norm" in name.lower() and name.endswith("weight") else 0))
    return network.eval()


def saved(name, network, tokenizer):
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def rounded(numbers):
    """Rounds to a hundredth of the tests' tolerance."""
    return np.round(np.asarray(numbers, np.float64), 7).tolist()


def embedding(name, network, tokenizer, pooling, normalize, **config):
    """Saves a model with sentence-transformers and returns its results."""
    scratch = saved(f"{name}.scratch", random(network), tokenizer)
    modules = [Transformer(str(scratch)), Pooling(network.config.hidden_size, pooling)]
    modules += [Normalize()] if normalize else []
    model = SentenceTransformer(modules=modules, device="cpu", **config)
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save(str(folder), create_model_card=False)
    shutil.rmtree(scratch)
    # Weights in half precision, computation in single precision.
    model.float()
    query, passage = model.encode_query(FEW), model.encode_document(FEW)
    similar = model.similarity(model.encode_query([QUERY]), model.encode_document(PASSAGES))[0]
    return {
        "query": rounded(query),
        "passage": rounded(passage),
        "similarity": rounded(similar),
        "tokens": [len(ids) for ids in model.tokenizer(FEW, truncation=True)["input_ids"]],
    }


def scoring(name, network, tokenizer):
    folder = saved(name, random(network), tokenizer)
    model = CrossEncoder(str(folder), device="cpu")
    return {"scores": rounded(model.predict([(QUERY, passage) for passage in PASSAGES]))}


def graph(name, network, tokenizer):
    """Saves a network that the plugin does not implement itself as an ONNX file, and returns its results."""
    answers = embedding(name, network, tokenizer, "mean", True)
    folder = MODELS / name
    ids = torch.ones((2, 5), dtype=torch.int64)
    (folder / "onnx").mkdir()
    torch.onnx.export(
        network,
        (ids, ids),
        folder / "onnx" / "model.onnx",
        input_names=["input_ids", "attention_mask"],
        output_names=["last_hidden_state", "pooled"],
        dynamic_axes={key: {0: "batch", 1: "length"} for key in ["input_ids", "attention_mask", "last_hidden_state"]},
        dynamo=False,
    )
    (folder / "model.safetensors").unlink()
    return answers


def main():
    torch.manual_seed(0)
    words, pieces = wordpiece(), unigram()
    bert = dict(SIZES, vocab_size=len(words), type_vocab_size=2, pad_token_id=0)
    roberta = dict(SIZES, vocab_size=len(pieces), type_vocab_size=1, pad_token_id=1)
    prompts = {"prompts": {"query": "query: ", "document": "passage: "}}
    expected = {
        "e5": embedding("e5", BertModel(BertConfig(**bert)), words, "mean", True, **prompts),
        "bge": embedding(
            "bge", BertModel(BertConfig(**bert, hidden_act="gelu_new")), words, "cls", True, similarity_fn_name="dot"
        ),
        "multilingual": embedding(
            "multilingual", XLMRobertaModel(XLMRobertaConfig(**roberta)), pieces, "max", False, similarity_fn_name="euclidean"
        ),
        "half": embedding("half", BertModel(BertConfig(**bert)).to(torch.bfloat16), words, "mean", False),
        "cross": scoring(
            "cross",
            BertForSequenceClassification(
                BertConfig(
                    **bert, num_labels=1, sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"}
                )
            ),
            words,
        ),
        "cross_multilingual": scoring(
            "cross_multilingual", XLMRobertaForSequenceClassification(XLMRobertaConfig(**roberta, num_labels=1)), pieces
        ),
        "mpnet": graph("mpnet", MPNetModel(MPNetConfig(**dict(SIZES, vocab_size=len(words), pad_token_id=1))), words),
    }
    (HERE / "small.json").write_text(
        json.dumps({"texts": FEW, "query": QUERY, "passages": PASSAGES, "expected": expected}, ensure_ascii=False)
    )
    minilm = SentenceTransformer(sys.argv[1], device="cpu")
    vectors = np.concatenate([minilm.encode([text]) for text in TEXTS])
    tokens = [len(ids) for ids in minilm.tokenizer(TEXTS, truncation=True)["input_ids"]]
    (HERE / "minilm.json").write_text(json.dumps({"texts": TEXTS, "tokens": tokens}, ensure_ascii=False, indent=0))
    (HERE / "minilm.f32").write_bytes(vectors.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
