//! What a reload did, in words.

use std::fmt;

/// What a reload did, for the log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Models that have a new generation.
    pub loaded: Vec<String>,
    /// Models whose generation is used in another way.
    pub reconfigured: Vec<String>,
    /// Models that are gone.
    pub removed: Vec<String>,
    /// Models that stayed as they were.
    pub kept: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (verb, models) in [
            ("loaded", &self.loaded),
            ("reconfigured", &self.reconfigured),
            ("removed", &self.removed),
        ] {
            if !models.is_empty() {
                write!(f, "{separator}{verb} {}", models.join(", "))?;
                separator = "; ";
            }
        }
        if self.kept > 0 || separator.is_empty() {
            write!(f, "{separator}{} unchanged", self.kept)?;
        }
        Ok(())
    }
}
