"""Generates small models of all supported networks, with random weights, and their results.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python architectures.py [NAME...]

Without names, all are generated. The models are in ../models, and the results in architectures.json.
"""

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import torch
from sentence_transformers import MultiVectorEncoder, SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from sentence_transformers.sparse_encoder.modules import SpladePooling
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    AlbertForSequenceClassification,
    AlbertModel,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForMaskedLM,
    DistilBertForSequenceClassification,
    DistilBertModel,
    GteConfig,
    GteForSequenceClassification,
    GteModel,
    LlamaConfig,
    LlamaModel,
    MistralConfig,
    MistralModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertForSequenceClassification,
    ModernBertModel,
    MPNetConfig,
    MPNetForMaskedLM,
    MPNetForSequenceClassification,
    MPNetModel,
    NomicBertConfig,
    NomicBertForSequenceClassification,
    NomicBertModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2Model,
    Qwen3Config,
    Qwen3ForSequenceClassification,
    Qwen3Model,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
    RobertaModel,
)

from make import random, rounded
from sentences import sentences

HERE = Path(__file__).parent
MODELS = HERE.parent / "models" / "architectures"
SENTENCES = sentences()
# Short, long (truncated), empty, and with a padding token.
TEXTS = [*SENTENCES[44:50], "", "lake", " ".join(SENTENCES[44:60]), "a <pad> b [PAD] c"]
PAIRS = [[SENTENCES[60], text] for text in TEXTS[:4]]
PROMPTS = {"query": "find: ", "document": "lake text: ", "topic": "topic of "}
SIZES = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=66)


def trained(style):
    """A tokenizer with the special tokens of BERT, of RoBERTa, or of a decoder."""
    special = {
        "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
        "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        "decoder": ["<pad>", "<unk>", "<end>"],
    }[style]
    unknown = next(token for token in special if "unk" in token.lower())
    tokenizer = Tokenizer(models.WordPiece(unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=style == "bert")
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=120, limit_alphabet=40, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(SENTENCES[44:], trainer)
    ids = {token: tokenizer.token_to_id(token) for token in special}
    single, pair, used = {
        "bert": ("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ["[CLS]", "[SEP]"]),
        "roberta": ("<s> $A </s>", "<s> $A </s> </s> $B </s>", ["<s>", "</s>"]),
        "decoder": ("$A <end>", "$A $B <end>", ["<end>"]),
    }[style]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, ids[token]) for token in used]
    )
    names = {
        "bert": dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]"),
        "roberta": dict(pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>", mask_token="<mask>"),
        "decoder": dict(pad_token="<pad>", unk_token="<unk>", eos_token="<end>"),
    }[style]
    inputs = ["input_ids", "attention_mask"] + (["token_type_ids"] if style == "bert" else [])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, model_input_names=inputs, **names)


TOKENIZERS = {style: trained(style) for style in ["bert", "roberta", "decoder"]}


def saved(name, network, style):
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    random(network).save_pretrained(folder)
    TOKENIZERS[style].save_pretrained(folder)
    return folder


def with_modules(name, kind, network, style, modules, prepare=None, **options):
    """Saves a model of the class `kind` of sentence-transformers, and loads it."""
    scratch = saved(f"{name}.scratch", network, style)
    task = options.pop("task", "feature-extraction")
    expansion = options.pop("query_expansion", None)
    transformer = Transformer(str(scratch), transformer_task=task, query_expansion=expansion)
    model = kind(modules=[transformer, *modules], device="cpu", **options)
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save(str(folder), create_model_card=False)
    shutil.rmtree(scratch)
    if prepare:
        prepare(folder, model)
        return model
    return kind(str(folder), device="cpu")


def alone_and_together(encode):
    """The results do not depend on the other texts of a batch, up to rounding."""
    alone = [encode([text])[0] for text in TEXTS]
    together = encode(TEXTS)
    for one, other in zip(alone, together):
        torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), atol=1e-5, rtol=1e-5)
    return alone


def embedding(name, network, style, pooling="mean", modules=(), prepare=None, **options):
    width = network.config.hidden_size
    pooling = pooling if isinstance(pooling, Pooling) else Pooling(width, pooling)
    model = with_modules(name, SentenceTransformer, network, style, [pooling, *modules], prepare, **options)
    return {
        "query": rounded(alone_and_together(model.encode_query)),
        "passage": rounded(alone_and_together(model.encode_document)),
        "tokens": [len(ids) for ids in model.tokenizer(TEXTS, truncation=True)["input_ids"]],
    }


def sparse(name, network, style, **options):
    model = with_modules(name, SparseEncoder, network, style, [SpladePooling(**options)], task="fill-mask")
    return {"query": rounded([model.encode_query([text], convert_to_sparse_tensor=False)[0] for text in TEXTS])}


def vectors_of_tokens(name, network, style, **options):
    width = network.config.hidden_size
    modules = [
        Dense(width, 8, bias=False, activation_function=torch.nn.Identity(), module_input_name="token_embeddings"),
        Normalize(module_input_name="token_embeddings"),
        MultiVectorMask(skiplist_words=["a", "the", ",", "."]),
    ]
    random(modules[0])
    model = with_modules(name, MultiVectorEncoder, network, style, modules, prompts=PROMPTS, **options)
    return {
        "query": [rounded(model.encode_query([text])[0]) for text in TEXTS],
        "passage": [rounded(model.encode_document([text])[0]) for text in TEXTS],
    }


def classifier(name, network, style):
    folder = saved(name, network, style)
    network = type(network).from_pretrained(folder).eval()

    def logits(*texts):
        inputs = TOKENIZERS[style](*texts, truncation=True, return_tensors="pt")
        with torch.no_grad():
            return rounded(network(**inputs).logits[0])

    return {"texts": [logits(text) for text in TEXTS], "pairs": [logits(*pair) for pair in PAIRS]}


def ntk(folder, model):
    """Changes a GTE model to the form of the custom code with which it was published, whose positions are scaled by a factor.

    The frequencies are those of NTKScalingRotaryEmbedding in that code.
    """
    file = folder / "config.json"
    config = json.loads(file.read_text())
    del config["rope_parameters"]
    config |= {"model_type": "new", "rope_theta": 500.0, "rope_scaling": {"type": "ntk", "factor": 4.0}}
    config |= {"position_embedding_type": "rope", "pack_qkv": True, "layer_norm_type": "layer_norm"}
    file.write_text(json.dumps(config, indent=2))
    network = model[0].model
    size = network.config.hidden_size // network.config.num_attention_heads
    frequencies = 1.0 / (500.0 * 4.0) ** (torch.arange(0, size, 2).float() / size)
    network.rotary_emb.inv_freq = frequencies / 4.0 ** (2 / size)


def main():
    torch.manual_seed(0)
    bert = dict(SIZES, vocab_size=120, pad_token_id=0)
    roberta = dict(SIZES, vocab_size=120, pad_token_id=1)
    distilbert = dict(vocab_size=120, dim=16, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=66)
    albert = dict(SIZES, vocab_size=120, embedding_size=8, num_hidden_groups=2, inner_group_num=2)
    albert["num_hidden_layers"] = 3
    tokens = dict(bos_token_id=None, eos_token_id=None, cls_token_id=2, sep_token_id=3, pad_token_id=0)
    modern = dict(SIZES, vocab_size=120, local_attention=8, **tokens)
    modern["num_hidden_layers"] = 4
    decoder = dict(SIZES, vocab_size=120, num_key_value_heads=2, pad_token_id=0, bos_token_id=None, eos_token_id=2)
    decoder["num_attention_heads"] = 4
    windows = dict(use_sliding_window=True, sliding_window=6, max_window_layers=1)
    qwen3 = dict(decoder, head_dim=8, **windows)
    labels = dict(id2label={0: "lake", 1: "mountain", 2: "city"}, label2id={"lake": 0, "mountain": 1, "city": 2})
    dense = [Dense(16, 12, use_residual=True), LayerNorm(12), Dense(12, 12, bias=False, use_residual=True), Normalize()]
    for module in dense[:3]:
        random(module)
    models = {
        "roberta": lambda: embedding("roberta", RobertaModel(RobertaConfig(**roberta, type_vocab_size=1)), "roberta"),
        "distilbert": lambda: embedding("distilbert", DistilBertModel(DistilBertConfig(**distilbert)), "bert"),
        "mpnet": lambda: embedding("mpnet", MPNetModel(MPNetConfig(**roberta)), "roberta", modules=[Normalize()]),
        "albert": lambda: embedding("albert", AlbertModel(AlbertConfig(**albert)), "bert"),
        "modernbert": lambda: embedding("modernbert", ModernBertModel(ModernBertConfig(**modern)), "bert", "cls"),
        "modernbert_biased": lambda: embedding(
            "modernbert_biased",
            ModernBertModel(ModernBertConfig(**modern, norm_bias=True, attention_bias=True, mlp_bias=True)),
            "bert",
        ),
        "nomic": lambda: embedding(
            "nomic", NomicBertModel(NomicBertConfig(**bert)), "bert", modules=[Normalize()], prompts=PROMPTS
        ),
        "gte": lambda: embedding("gte", GteModel(GteConfig(**bert)), "bert", "cls"),
        "gte_ntk": lambda: embedding("gte_ntk", GteModel(GteConfig(**bert, type_vocab_size=0)), "bert", "cls", prepare=ntk),
        "qwen3": lambda: embedding(
            "qwen3", Qwen3Model(Qwen3Config(**qwen3)), "decoder", "lasttoken", [Normalize()], prompts=PROMPTS
        ),
        "qwen2": lambda: embedding("qwen2", Qwen2Model(Qwen2Config(**decoder)), "decoder", "lasttoken"),
        "mistral": lambda: embedding(
            "mistral",
            MistralModel(
                MistralConfig(
                    **decoder,
                    sliding_window=5,
                    rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1000.0},
                )
            ),
            "decoder",
            "weightedmean",
        ),
        "llama": lambda: embedding("llama", LlamaModel(LlamaConfig(**decoder, attention_bias=True, mlp_bias=True)), "decoder"),
        "bidirectional": lambda: embedding("bidirectional", LlamaModel(LlamaConfig(**decoder, is_causal=False)), "decoder"),
        "modules": lambda: embedding(
            "modules", BertModel(BertConfig(**bert)), "bert", modules=dense, prompts=PROMPTS, truncate_dim=10
        ),
        "poolings": lambda: embedding(
            "poolings",
            BertModel(BertConfig(**bert)),
            "bert",
            Pooling(16, ["lasttoken", "cls", "mean_sqrt_len_tokens", "weightedmean", "max"], include_prompt=False),
            prompts=PROMPTS,
        ),
    }
    for name, network, style in [
        ("sparse_bert", BertForMaskedLM(BertConfig(**bert)), "bert"),
        ("sparse_distilbert", DistilBertForMaskedLM(DistilBertConfig(**distilbert)), "bert"),
        ("sparse_roberta", RobertaForMaskedLM(RobertaConfig(**roberta)), "roberta"),
        ("sparse_mpnet", MPNetForMaskedLM(MPNetConfig(**roberta)), "roberta"),
        ("sparse_albert", AlbertForMaskedLM(AlbertConfig(**albert)), "bert"),
        ("sparse_modernbert", ModernBertForMaskedLM(ModernBertConfig(**modern)), "bert"),
    ]:
        options = dict(pooling_strategy="sum", activation_function="log1p_relu") if "distil" in name else {}
        models[name] = partial(sparse, name, network, style, **options)
    for name, expansion in [
        ("tokens", None),
        ("tokens_expanded", {"strategy": "fixed", "attend": False, "length": 12}),
        ("tokens_attended", {"strategy": "min", "attend": True, "length": 12, "token": "[UNK]"}),
    ]:
        network = BertModel(BertConfig(**bert))
        models[name] = partial(vectors_of_tokens, name, network, "bert", query_expansion=expansion)
    for name, network, style in [
        ("labels_bert", BertForSequenceClassification(BertConfig(**bert, **labels)), "bert"),
        ("labels_distilbert", DistilBertForSequenceClassification(DistilBertConfig(**distilbert)), "bert"),
        (
            "labels_roberta",
            RobertaForSequenceClassification(
                RobertaConfig(**roberta, **labels, problem_type="multi_label_classification")
            ),
            "roberta",
        ),
        ("labels_mpnet", MPNetForSequenceClassification(MPNetConfig(**roberta, **labels)), "roberta"),
        ("labels_albert", AlbertForSequenceClassification(AlbertConfig(**albert, **labels)), "bert"),
        (
            "labels_modernbert",
            ModernBertForSequenceClassification(ModernBertConfig(**modern, **labels, classifier_pooling="mean")),
            "bert",
        ),
        ("labels_nomic", NomicBertForSequenceClassification(NomicBertConfig(**bert, **labels)), "bert"),
        ("labels_gte", GteForSequenceClassification(GteConfig(**bert, **labels, type_vocab_size=2)), "bert"),
        ("labels_qwen3", Qwen3ForSequenceClassification(Qwen3Config(**qwen3, **labels)), "decoder"),
    ]:
        models[name] = partial(classifier, name, network, style)
    file = HERE / "architectures.json"
    expected = json.loads(file.read_text())["expected"] if sys.argv[1:] else {}
    for name in sys.argv[1:] or models:
        expected[name] = models[name]()
    file.write_text(json.dumps({"texts": TEXTS, "pairs": PAIRS, "expected": expected}, ensure_ascii=False))


if __name__ == "__main__":
    main()
