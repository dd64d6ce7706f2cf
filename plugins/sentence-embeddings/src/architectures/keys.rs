//! The keys of `config.json` that networks of several families have. The tables of a family take precedence.

use transformer::files::{Key, honored, irrelevant, only};
use transformer::keys;

/// Keys of all families, besides those that all libraries have.
pub(super) static COMMON: &[Key] = &honored([
    "model_type",
    "architectures",
    "vocab_size",
    "num_labels",
    "id2label",
    "problem_type",
    "sentence_transformers",
    "sbert_ce_default_activation_function",
    "tie_word_embeddings",
]);

/// Keys of the section with parameters of rotary positions.
pub(super) static ROTARY: &[Key] = keys![
    honored(["rope_theta", "rope_type", "type", "factor"]),
    [
        only("partial_rotary_factor", &["1", "1.0", "null"]),
        only("mixed_b", &["null"])
    ],
];

/// Keys of files with the custom Python code of networks that this plugin implements itself.
pub(super) const OWN_CODE: [Key; 1] = irrelevant("the plugin implements this network itself", ["auto_map"]);

/// Parameters of the poolers of old BERT models.
pub(super) const OLD_POOLER: [Key; 6] = irrelevant(
    "describes a pooler that no network uses",
    [
        "pooler_fc_size",
        "pooler_num_attention_heads",
        "pooler_num_fc_layers",
        "pooler_size_per_head",
        "pooler_type",
        "directionality",
    ],
);
