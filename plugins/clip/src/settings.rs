//! `[models.settings]` as it is written. What it means for a given folder is decided in `folder`; nothing here opens a file.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use pictures::{Orientation, TruncatedImages};
use schemars::JsonSchema;
use serde::Deserialize;

/// `[models.settings]`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The model's folder, as transformers saves one. A relative path starts at the folder of the configuration file.
    pub(crate) folder: PathBuf,
    /// Whether the vectors of texts and images are scaled to length 1.
    #[serde(default = "yes")]
    pub(crate) normalize: bool,
    /// Whether longer texts are cut, or refused.
    #[serde(default = "yes")]
    pub(crate) truncate: bool,
    /// Maximum number of pixels of an image.
    #[serde(default = "sixty_four_megapixels")]
    pub(crate) max_pixels: u64,
    /// How the orientation in an image's Exif metadata is handled: ignored, or applied.
    #[serde(default)]
    pub(crate) orientation: Orientation,
    /// How truncated JPEG files are handled: rejected, or decoded as far as they go.
    #[serde(default)]
    pub(crate) truncated_images: TruncatedImages,
    /// The text that is held against an image for a label, which stands for `{}`. A request may bring its own.
    #[serde(default = "this_is_a_photo")]
    pub(crate) template: String,
    /// Most labels of one item of the task `classify`.
    #[serde(default = "a_thousand")]
    pub(crate) max_labels: NonZeroUsize,
    /// How many labels are remembered with their vectors; those that were asked for most recently.
    #[serde(default = "four_thousand")]
    pub(crate) cached_labels: NonZeroUsize,
    /// Threads that compute one batch; as many as the server suggests, if not said.
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
    const THOUSAND: NonZeroUsize = NonZeroUsize::new(1000).expect("it is not 0");
    THOUSAND
}

fn four_thousand() -> NonZeroUsize {
    const FOUR_THOUSAND: NonZeroUsize = NonZeroUsize::new(4000).expect("it is not 0");
    FOUR_THOUSAND
}
