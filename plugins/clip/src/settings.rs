//! `[models.settings]`. How the settings and the model directory are combined is defined in `model_spec`.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use pictures::{Orientation, TruncatedImages};
use schemars::JsonSchema;
use serde::Deserialize;

/// `[models.settings]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Directory of the model, as saved by transformers. A relative path is relative to the directory of the configuration file.
    pub(crate) folder: PathBuf,
    /// Whether the vectors of texts and images are scaled to length 1.
    #[serde(default = "yes")]
    pub(crate) normalize: bool,
    /// Whether texts that are too long are truncated or rejected.
    #[serde(default = "yes")]
    pub(crate) truncate: bool,
    /// Maximum number of pixels of an image.
    #[serde(default = "sixty_four_megapixels")]
    pub(crate) max_pixels: u64,
    /// How the orientation in an image's Exif metadata is handled: ignored, or applied.
    #[serde(default)]
    pub(crate) orientation: Orientation,
    /// How truncated JPEG files are handled: rejected, or decoded with the missing part filled in.
    #[serde(default)]
    pub(crate) truncated_images: TruncatedImages,
    /// Text that is compared with an image for each label, which replaces `{}`. A request can override it.
    #[serde(default = "this_is_a_photo")]
    pub(crate) template: String,
    /// Maximum number of labels in an item of the task `classify`.
    #[serde(default = "a_thousand")]
    pub(crate) max_labels: NonZeroUsize,
    /// Number of labels whose vectors are cached. The least recently used are evicted.
    #[serde(default = "four_thousand")]
    pub(crate) cached_labels: NonZeroUsize,
    /// Keys of the JSON files in the directory that this plugin does not know and that do not affect the results. Unknown keys are
    /// errors otherwise.
    #[serde(default)]
    pub(crate) ignored_keys: Vec<String>,
    /// Number of threads that compute one batch. Default: the number that the server suggests.
    pub(crate) threads: Option<NonZeroUsize>,
}

fn yes() -> bool {
    true
}

fn sixty_four_megapixels() -> u64 {
    64_000_000
}

fn this_is_a_photo() -> String {
    "This is a photo of {}.".to_owned()
}

fn a_thousand() -> NonZeroUsize {
    const THOUSAND: NonZeroUsize = NonZeroUsize::new(1000).expect("not 0");
    THOUSAND
}

fn four_thousand() -> NonZeroUsize {
    const FOUR_THOUSAND: NonZeroUsize = NonZeroUsize::new(4000).expect("not 0");
    FOUR_THOUSAND
}
