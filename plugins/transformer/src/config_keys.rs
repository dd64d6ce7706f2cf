//! Tables of the keys of configuration files that many networks and tokenizers have in common.

use crate::files::{Key, irrelevant, only};

/// Creates a table of keys from arrays of keys.
#[macro_export]
macro_rules! keys {
    ($($part:expr),+ $(,)?) => {{
        const PARTS: &[&[$crate::files::Key]] = &[$(&$part),+];
        const COUNT: usize = {
            let (mut count, mut part) = (0, 0);
            while part < PARTS.len() {
                count += PARTS[part].len();
                part += 1;
            }
            count
        };
        const KEYS: [$crate::files::Key; COUNT] = {
            let mut keys = [PARTS[0][0]; COUNT];
            let (mut count, mut part) = (0, 0);
            while part < PARTS.len() {
                let mut index = 0;
                while index < PARTS[part].len() {
                    keys[count] = PARTS[part][index];
                    index += 1;
                    count += 1;
                }
                part += 1;
            }
            keys
        };
        &KEYS
    }};
}

const TRAINING: &str = "training only";
const GENERATION: &str = "only for generating text";
const ORIGIN: &str = "records where the file comes from";
const OUTPUT: &str = "selects outputs of the Python class that are not used here";
const TOKENS: &str = "the tokenizer's files define special tokens";
const PRECISION: &str = "the computation has 32 bits, whatever the type of the weights";
const SPEED: &str = "selects an equivalent implementation";

/// Keys of `config.json` that are handled alike for all networks.
pub static NETWORK: &[Key] = keys![
    irrelevant("the inverse of `id2label`", ["label2id"]),
    irrelevant("the number of `id2label`", ["_num_labels"]),
    irrelevant(
        ORIGIN,
        [
            "_name_or_path",
            "name_or_path",
            "transformers_version",
            "finetuning_task",
            "language",
            "name",
            "model_name"
        ]
    ),
    irrelevant(PRECISION, ["torch_dtype", "dtype", "use_bfloat16"]),
    irrelevant(
        TRAINING,
        [
            "initializer_range",
            "initializer_factor",
            "hidden_dropout_prob",
            "attention_probs_dropout_prob",
            "attention_dropout",
            "classifier_dropout",
            "classifier_dropout_prob",
            "dropout",
            "hidden_dropout",
            "gradient_checkpointing",
            "layerdrop",
        ]
    ),
    irrelevant(
        GENERATION,
        [
            "use_cache",
            "max_length",
            "min_length",
            "do_sample",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "diversity_penalty",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "repetition_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "bad_words_ids",
            "num_return_sequences",
            "output_scores",
            "return_dict_in_generate",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "remove_invalid_values",
            "exponential_decay_length_penalty",
            "suppress_tokens",
            "begin_suppress_tokens",
            "decoder_start_token_id",
            "task_specific_params",
            "prefix",
            "output_past",
            "tie_encoder_decoder",
        ]
    ),
    irrelevant(
        OUTPUT,
        [
            "return_dict",
            "output_hidden_states",
            "output_attentions",
            "torchscript"
        ]
    ),
    irrelevant(
        TOKENS,
        [
            "bos_token_id",
            "eos_token_id",
            "sep_token_id",
            "cls_token_id",
            "mask_token_id",
            "tokenizer_class"
        ]
    ),
    irrelevant(
        "the lengths of the texts of a batch do not matter without padding",
        ["pad_token_id"]
    ),
    irrelevant(
        SPEED,
        [
            "chunk_size_feed_forward",
            "attn_implementation",
            "_attn_implementation",
            "_attn_implementation_autoset",
            "_attn_implementation_internal"
        ]
    ),
    irrelevant("for the library transformers.js", ["transformers.js_config"]),
    [
        only("is_decoder", &["false", "null"]),
        only("is_encoder_decoder", &["false", "null"]),
        only("add_cross_attention", &["false", "null"]),
        only("cross_attention_hidden_size", &["null"]),
        only("pruned_heads", &["{}", "null"]),
        only("quantization_config", &["null"]),
        only("auto_map", &["null"]),
    ],
];

/// Keys of `tokenizer_config.json` that are handled alike for all tokenizers, which have a `tokenizer.json`.
pub static TOKENIZER: &[Key] = keys![
    irrelevant(
        "`tokenizer.json` has it",
        [
            "tokenizer_class",
            "backend",
            "added_tokens_decoder",
            "additional_special_tokens",
            "extra_special_tokens",
            "unk_token",
            "sep_token",
            "pad_token",
            "cls_token",
            "mask_token",
            "do_basic_tokenize",
            "do_word_tokenize",
            "subword_tokenizer_type",
            "word_tokenizer_type",
            "never_split",
            "add_prefix_space",
            "trim_offsets",
            "keep_accents",
            "remove_space",
            "sp_model_kwargs",
            "legacy",
            "vocab_file",
            "merges_file",
            "tokenizer_file",
            "use_default_system_prompt",
            "add_dummy_prefix",
            "model_specific_special_tokens",
            "lang_codes",
            "vocab_type",
            "cls_token_box",
            "normalize_text",
            "mecab_kwargs",
        ],
    ),
    irrelevant(
        "it does not concern the tokens of a text",
        [
            "name_or_path",
            "special_tokens_map_file",
            "clean_up_tokenization_spaces",
            "chat_template",
            "errors",
            "is_local",
            "local_files_only",
            "from_slow",
            "use_fast",
            "processor_class",
            "auto_map",
            "spaces_between_special_tokens",
            "device_map",
            "trust_remote_code",
        ],
    ),
    irrelevant(
        "nothing is padded",
        [
            "padding_side",
            "padding",
            "pad_to_multiple_of",
            "pad_token_type_id",
            "pad_to_max_length"
        ],
    ),
    irrelevant(
        "sentence-transformers overrides it in each call",
        [
            "max_length",
            "truncation",
            "stride",
            "truncation_strategy",
            "max_len",
            "return_token_type_ids"
        ],
    ),
    [only("split_special_tokens", &["false", "null"])],
];
