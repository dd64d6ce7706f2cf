//! Tests that no part of a directory's configuration is ignored: each key of each file is honored, irrelevant, or an error.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::fs;

use common::{ModelCopy, load, models, reference_json, vector};
use plugin_sdk::serde_json::{Value as Json, json};

const BERT: &str = "e5";
const MODERN: &str = "architectures/modernbert";
const NOMIC: &str = "architectures/nomic";
const GTE: &str = "architectures/gte";
const QWEN3: &str = "architectures/qwen3";
const MISTRAL: &str = "architectures/mistral";
const LLAMA: &str = "architectures/llama";
const ALBERT: &str = "architectures/albert";
const MPNET: &str = "architectures/mpnet";
const LABELS: &str = "architectures/labels_bert";
const TOKENS: &str = "architectures/tokens";
const SPARSE: &str = "architectures/sparse_bert";
const MODULES: &str = "architectures/modules";

#[test]
fn values_that_are_not_supported_are_errors_that_name_the_file_the_key_and_the_value() {
    let config = "config.json";
    let tokenizer = "tokenizer_config.json";
    let lengths = "sentence_bert_config.json";
    let texts = "config_sentence_transformers.json";
    for (folder, file, key, value, expected) in [
        (BERT, config, "is_decoder", json!(true), "false or null"),
        (BERT, config, "add_cross_attention", json!(true), "false or null"),
        (BERT, config, "is_encoder_decoder", json!(true), "false or null"),
        (BERT, config, "pruned_heads", json!({"0": [1]}), "{} or null"),
        (
            BERT,
            config,
            "position_embedding_type",
            json!("relative_key"),
            "\"absolute\" or null",
        ),
        (BERT, config, "quantization_config", json!({"bits": 4}), "null"),
        (
            BERT,
            config,
            "auto_map",
            json!({"AutoModel": "modeling.JinaBert"}),
            "null",
        ),
        (BERT, config, "hidden_size", json!(0), "a positive integer"),
        (
            MPNET,
            config,
            "relative_attention_num_buckets",
            json!(64),
            "32 or null",
        ),
        (
            ALBERT,
            config,
            "num_hidden_groups",
            json!(9),
            "at most `num_hidden_layers` 3",
        ),
        (
            MODERN,
            config,
            "layer_types",
            json!(["full_attention"]),
            "4 layers",
        ),
        (
            MODERN,
            config,
            "layer_types",
            json!(["chunked", "chunked", "chunked", "chunked"]),
            "full_attention and sliding_attention",
        ),
        (MODERN, config, "classifier_pooling", json!("max"), "cls or mean"),
        (NOMIC, config, "rotary_scaling_factor", json!(2.0), "null"),
        (
            NOMIC,
            config,
            "rotary_emb_interleaved",
            json!(true),
            "false or null",
        ),
        (NOMIC, config, "prenorm", json!(true), "false or null"),
        (NOMIC, config, "qkv_proj_bias", json!(true), "false or null"),
        (NOMIC, config, "head_dim", json!(4), "8"),
        (GTE, config, "logn_attention_scale", json!(true), "false or null"),
        (
            GTE,
            config,
            "rope_scaling",
            json!({"type": "ntk", "factor": 2.0}),
            "the type `default` or `linear`",
        ),
        (
            QWEN3,
            config,
            "rope_scaling",
            json!({"rope_type": "yarn", "factor": 2.0}),
            "the type `default` or `linear`",
        ),
        (
            QWEN3,
            config,
            "num_key_value_heads",
            json!(3),
            "a divisor of the number of attention heads, 4",
        ),
        (
            QWEN3,
            config,
            "layer_types",
            json!(["full_attention", "linear_attention"]),
            "full_attention and sliding_attention",
        ),
        (QWEN3, config, "rope_theta", json!("high"), "invalid type"),
        (
            MISTRAL,
            config,
            "sliding_window",
            json!(0),
            "a positive integer or null",
        ),
        (
            MISTRAL,
            config,
            "is_causal",
            json!(false),
            "true with `sliding_window`",
        ),
        (
            MISTRAL,
            config,
            "attention_bias",
            json!(true),
            "false for the type `mistral`",
        ),
        (
            LLAMA,
            config,
            "sliding_window",
            json!(8),
            "null for the type `llama`",
        ),
        (
            LABELS,
            config,
            "num_labels",
            json!(5),
            "3, the number of labels in `id2label`",
        ),
        (
            LABELS,
            config,
            "problem_type",
            json!("ranking"),
            "single_label_classification",
        ),
        (
            BERT,
            tokenizer,
            "truncation_side",
            json!("middle"),
            "left or right",
        ),
        (
            BERT,
            tokenizer,
            "split_special_tokens",
            json!(true),
            "false or null",
        ),
        (
            BERT,
            tokenizer,
            "do_lower_case",
            json!(false),
            "true, the value of `lowercase` of the normalizer",
        ),
        (
            BERT,
            tokenizer,
            "tokenize_chinese_chars",
            json!(false),
            "true, the value of `handle_chinese_chars`",
        ),
        (
            BERT,
            lengths,
            "transformer_task",
            json!("text-generation"),
            "feature-extraction, fill-mask",
        ),
        (
            BERT,
            lengths,
            "module_output_name",
            json!("sentence_embedding"),
            "token_embeddings",
        ),
        (
            BERT,
            lengths,
            "modality_config",
            json!({"image": {}}),
            "last_hidden_state",
        ),
        (
            BERT,
            lengths,
            "model_args",
            json!({"gguf_file": "a"}),
            "{} or null",
        ),
        (
            BERT,
            texts,
            "similarity_fn_name",
            json!("jaccard"),
            "unknown variant",
        ),
        (
            BERT,
            texts,
            "model_type",
            json!("ColBERT"),
            "SentenceTransformer, SparseEncoder",
        ),
        (
            BERT,
            texts,
            "default_prompt_name",
            json!("clustering"),
            "the name of a prompt in `prompts`",
        ),
        (
            BERT,
            "1_Pooling/config.json",
            "pooling_mode",
            json!([]),
            "at least one",
        ),
        (
            BERT,
            "2_Normalize/config.json",
            "module_input_name",
            json!("image_embeds"),
            "sentence_embedding or token_embeddings",
        ),
        (
            BERT,
            "2_Normalize/config.json",
            "module_output_name",
            json!("scaled"),
            "`module_input_name`",
        ),
        (
            MODULES,
            "2_Dense/config.json",
            "activation_function",
            json!("my.Snake"),
            "Tanh, Identity, ReLU",
        ),
        (
            SPARSE,
            "1_SpladePooling/config.json",
            "pooling_strategy",
            json!("mean"),
            "max or sum",
        ),
        (
            TOKENS,
            "3_MultiVectorMask/config.json",
            "keep_only_token_ids",
            json!([5]),
            "null",
        ),
        (
            TOKENS,
            "3_MultiVectorMask/config.json",
            "skiplist_tasks",
            json!(["query"]),
            "document, or query and document",
        ),
    ] {
        let message = ModelCopy::of(folder).set(file, key, &value).load_error();
        let found = format!("{file}` has `{key}` {value}");
        let (found, expected) = (found.as_str(), expected.to_owned());
        assert!(
            message.contains(found) && message.contains(&expected),
            "{folder}: {message}"
        );
    }
}

#[test]
fn unknown_keys_are_errors_in_every_file() {
    for (folder, file) in [
        (BERT, "config.json"),
        (MODERN, "config.json"),
        (QWEN3, "config.json"),
        (BERT, "tokenizer_config.json"),
        (BERT, "sentence_bert_config.json"),
        (BERT, "config_sentence_transformers.json"),
        (BERT, "1_Pooling/config.json"),
        (BERT, "2_Normalize/config.json"),
        (MODULES, "2_Dense/config.json"),
        (MODULES, "3_LayerNorm/config.json"),
        (SPARSE, "1_SpladePooling/config.json"),
        (TOKENS, "3_MultiVectorMask/config.json"),
    ] {
        let message = ModelCopy::of(folder)
            .set(file, "logit_softcap", &json!(30.0))
            .load_error();
        let expected = format!(
            "{file}` has the unknown key `logit_softcap` with the value 30.0, which may affect the results: if it does not, add \
             \"logit_softcap\" to `ignored_keys`"
        );
        assert!(message.ends_with(&expected), "{folder}: {message}");
    }
}

#[test]
fn an_operator_can_declare_unknown_keys_irrelevant() {
    let copy = ModelCopy::of(BERT).set("config.json", "trained_by", &json!("me"));
    let ignoring = |keys: Json| load(json!({"folder": copy.path(), "ignored_keys": keys}), 1);
    assert!(ignoring(json!(["trained_by"])).is_ok());
    let failure = ignoring(json!(["trained_by", "trained_with"])).expect_err("no such key");
    assert_eq!(failure.key, "ignored_keys");
    assert_eq!(
        failure.message,
        "`trained_with` is not an unknown key of a file in the model directory: remove it"
    );
}

#[test]
fn the_side_of_truncation_is_read_from_the_tokenizer() {
    let text = json!("lake ".repeat(40) + &"deep ".repeat(40));
    let of = |copy: &ModelCopy| {
        let model = load(json!({"folder": copy.path()}), 1).expect("the model loads");
        vector(model.predict("passage", std::slice::from_ref(&text)).remove(0))
    };
    let right = of(&ModelCopy::of(BERT));
    let left = of(&ModelCopy::of(BERT).set("tokenizer_config.json", "truncation_side", &json!("left")));
    let same = of(&ModelCopy::of(BERT).set(
        "sentence_bert_config.json",
        "tokenizer_args",
        &json!({"truncation_side": "left"}),
    ));
    assert_ne!(left, right);
    assert_eq!(left, same);
}

#[test]
fn a_tokenizer_that_does_not_add_the_promised_tokens_is_an_error() {
    let copy = ModelCopy::of(QWEN3).set("tokenizer_config.json", "add_eos_token", &json!(true));
    copy.check_unchanged("qwen3");
    let message = copy
        .set("tokenizer_config.json", "add_eos_token", &json!(false))
        .load_error();
    assert!(
        message.ends_with(
            "adds the token `<end>`, expected as `add_eos_token` in `tokenizer_config.json` says: false"
        ),
        "{message}"
    );
}

#[test]
fn modules_that_do_not_match_are_errors() {
    let message = ModelCopy::of(MODULES)
        .set("2_Dense/config.json", "use_residual", &json!(false))
        .load_error();
    assert!(
        message.contains("it has the tensor `residual.weight`"),
        "{message}"
    );
    let message = ModelCopy::of(MODULES)
        .edit("modules.json", |modules| {
            modules.as_array_mut().expect("a list").remove(2);
        })
        .load_error();
    assert!(
        message.contains("a module takes vectors of 12 numbers, but those of the modules before it have 16"),
        "{message}"
    );
    let copy = ModelCopy::of(MODULES).without("2_Dense/model.safetensors");
    assert!(
        copy.load_error()
            .contains("2_Dense/model.safetensors` does not exist")
    );
    let copy = ModelCopy::of(TOKENS).edit("modules.json", |modules| {
        modules
            .as_array_mut()
            .expect("a list")
            .insert(1, json!({"path": "1_Pooling", "type": "a.Pooling"}));
    });
    fs::create_dir(copy.path().join("1_Pooling")).expect("create the directory");
    fs::write(
        copy.path().join("1_Pooling/config.json"),
        r#"{"pooling_mode": "mean"}"#,
    )
    .expect("write the file");
    let message = copy.load_error();
    assert!(
        message.contains("is a module whose input no module before it produces"),
        "{message}"
    );
}

#[test]
fn an_adapter_is_an_error() {
    let copy = ModelCopy::of(BERT);
    fs::write(copy.path().join("adapter_config.json"), "{}").expect("write the file");
    assert!(copy.load_error().contains("adapter_config.json` is an adapter"));
}

#[test]
fn the_models_are_those_of_the_reference() {
    let reference = reference_json("architectures.json");
    let expected = reference["expected"].as_object().expect("an object");
    for entry in fs::read_dir(models().join("architectures")).expect("read the directory") {
        let name = entry.expect("read the directory").file_name();
        assert!(expected.contains_key(name.to_str().expect("UTF-8")), "{name:?}");
    }
}

#[test]
fn an_unsupported_query_expansion_is_an_error() {
    let of = |expansion: Json| {
        ModelCopy::of(TOKENS).set("sentence_bert_config.json", "query_expansion", &expansion)
    };
    for (expansion, expected) in [
        (
            json!({"strategy": "max", "length": 9}),
            "has `strategy` \"max\", expected fixed or min",
        ),
        (json!({"strategy": "fixed"}), "has no `length`"),
        (json!({"length": 65}), "with the `length` 65, expected at most 64"),
        (
            json!({"length": 9, "token": "[NONE]"}),
            "without a token of the vocabulary",
        ),
    ] {
        let message = of(expansion).load_error();
        assert!(message.contains(expected), "{message}");
    }
    let copy = ModelCopy::of(BERT).set(
        "sentence_bert_config.json",
        "query_expansion",
        &json!({"length": 9}),
    );
    let message = copy.load_error();
    assert!(
        message.contains("expected null in models that do not compute vectors of tokens"),
        "{message}"
    );
}
