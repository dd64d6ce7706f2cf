//! Directories of models as older or larger models were published: several files of weights, and older names of files, keys and
//! parameters.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod common;

use std::fs;
use std::path::Path;

use common::{ModelCopy, assert_close, load, numbers, reference_json, vector};
use plugin_sdk::serde_json::{Value as Json, json};

#[test]
fn all_names_of_the_file_with_the_maximum_length_are_read() {
    for name in [
        "sentence_bert_config.json",
        "sentence_roberta_config.json",
        "sentence_distilbert_config.json",
        "sentence_camembert_config.json",
        "sentence_albert_config.json",
        "sentence_xlm-roberta_config.json",
        "sentence_xlnet_config.json",
    ] {
        let copy = ModelCopy::of("e5").without("sentence_bert_config.json");
        fs::write(copy.path().join(name), r#"{"max_seq_length": 7}"#).expect("write the file");
        let model = load(json!({"folder": copy.path(), "truncate": false}), 1).expect("the model loads");
        let failure = model
            .predict("query", &[json!("a b c d e f g h")])
            .remove(0)
            .expect_err("too long");
        assert!(
            failure.message.ends_with("tokens, expected at most 7"),
            "{name}: {failure}"
        );
    }
}

#[test]
fn several_files_with_weights_are_equivalent_to_one() {
    let copy = ModelCopy::of("architectures/qwen3");
    let whole = fs::read(copy.path().join("model.safetensors")).expect("read the weights");
    let names = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mut map = plugin_sdk::serde_json::Map::new();
    for (name, (file, tensors)) in names.iter().zip(halves(&whole)) {
        fs::write(copy.path().join(name), file).expect("write the weights");
        map.extend(tensors.into_iter().map(|tensor| (tensor, json!(name))));
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    fs::write(
        copy.path().join("model.safetensors.index.json"),
        index.to_string(),
    )
    .expect("write the index");
    let copy = copy.without("model.safetensors");
    copy.check_unchanged("qwen3");

    let message = copy.without(names[1]).load_error();
    assert!(
        message.contains("model-00002-of-00002.safetensors` cannot be read"),
        "{message}"
    );
}

/// Splits a safetensors file into two, with the names of their tensors.
fn halves(whole: &[u8]) -> [(Vec<u8>, Vec<String>); 2] {
    let (header, data) = header(whole);
    let tensors: Vec<_> = header
        .as_object()
        .expect("an object")
        .iter()
        .filter(|(name, _)| *name != "__metadata__")
        .collect();
    let (one, other) = tensors.split_at(tensors.len() / 2);
    let file = |tensors: &[(&String, &Json)]| {
        let (mut header, mut content) = (plugin_sdk::serde_json::Map::new(), Vec::new());
        for (name, tensor) in tensors {
            let offsets: Vec<usize> =
                plugin_sdk::serde_json::from_value(tensor["data_offsets"].clone()).expect("offsets");
            let start = content.len();
            content.extend_from_slice(&data[offsets[0]..offsets[1]]);
            let mut tensor = (*tensor).clone();
            tensor["data_offsets"] = json!([start, content.len()]);
            header.insert((*name).clone(), tensor);
        }
        let names = tensors.iter().map(|(name, _)| (*name).clone()).collect();
        (safetensors(&Json::Object(header), &content), names)
    };
    [file(one), file(other)]
}

fn header(file: &[u8]) -> (Json, &[u8]) {
    let (length, rest) = file.split_first_chunk::<8>().expect("a length");
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (
        plugin_sdk::serde_json::from_slice(header).expect("valid JSON"),
        data,
    )
}

fn safetensors(header: &Json, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Renames tensors of a model.
fn rename_tensors(directory: &Path, rename: impl Fn(&str) -> String) {
    let path = directory.join("model.safetensors");
    let file = fs::read(&path).expect("read the weights");
    let (old, data) = header(&file);
    let renamed: plugin_sdk::serde_json::Map<_, _> = old
        .as_object()
        .expect("an object")
        .iter()
        .map(|(name, tensor)| (rename(name), tensor.clone()))
        .collect();
    fs::write(path, safetensors(&Json::Object(renamed), data)).expect("write the weights");
}

#[test]
fn old_names_of_parameters_are_read() {
    let copy = ModelCopy::of("architectures/albert");
    rename_tensors(copy.path(), |name| {
        name.replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta")
    });
    copy.check_unchanged("albert");
}

#[test]
fn a_nomic_model_as_it_was_published_matches_the_reference() {
    let names = [
        ("hidden_size", "n_embd"),
        ("num_attention_heads", "n_head"),
        ("num_hidden_layers", "n_layer"),
        ("intermediate_size", "n_inner"),
        ("max_position_embeddings", "n_positions"),
        ("layer_norm_eps", "layer_norm_epsilon"),
    ];
    let copy = ModelCopy::of("architectures/nomic").edit("config.json", |config| {
        let config = config.as_object_mut().expect("an object");
        for (new, old) in names {
            let value = config.remove(new).expect(new);
            config.insert(old.to_owned(), value);
        }
        config.remove("rope_parameters");
        config.remove("hidden_act");
        config.remove("head_dim");
        config.insert("rotary_emb_base".to_owned(), json!(1000));
        config.insert("rotary_emb_fraction".to_owned(), json!(1.0));
        config.insert("activation_function".to_owned(), json!("swiglu"));
        config.insert(
            "auto_map".to_owned(),
            json!({"AutoModel": "modeling_hf_nomic_bert.NomicBertModel"}),
        );
    });
    copy.check_unchanged("nomic");
}

#[test]
fn a_modernbert_with_older_keys_matches_the_reference() {
    let copy = ModelCopy::of("architectures/modernbert").edit("config.json", |config| {
        let config = config.as_object_mut().expect("an object");
        config.remove("rope_parameters");
        config.remove("layer_types");
        config.insert("global_rope_theta".to_owned(), json!(160_000.0));
        config.insert("local_rope_theta".to_owned(), json!(10_000.0));
        config.insert("global_attn_every_n_layers".to_owned(), json!(3));
    });
    copy.check_unchanged("modernbert");
}

#[test]
fn older_keys_of_pooling_are_read() {
    let copy = ModelCopy::of("architectures/poolings");
    let flags = json!({
        "word_embedding_dimension": 16,
        "pooling_mode_cls_token": true,
        "pooling_mode_mean_tokens": false,
        "pooling_mode_lasttoken": true,
        "include_prompt": false,
    });
    fs::write(copy.path().join("1_Pooling/config.json"), flags.to_string()).expect("write the file");
    let reference = reference_json("architectures.json");
    let model = load(json!({"folder": copy.path()}), 1).expect("the model loads");
    let text = &reference["texts"][0];
    let got = vector(model.predict("query", std::slice::from_ref(text)).remove(0));
    // The reference has the last token first, then the first, and then others.
    let all = numbers(&reference["expected"]["poolings"]["query"][0]);
    assert_close(&got, &[&all[16..32], &all[..16]].concat(), "two kinds of pooling");
}
