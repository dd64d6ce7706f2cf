//! The places of values, for errors that are found later.

use crate::config::error::{Location, Origin};

/// A location that comparisons ignore: any two are equal.
#[derive(Clone, Debug)]
pub(in crate::config) struct UncomparedLocation(pub(in crate::config) Location);

impl PartialEq for UncomparedLocation {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// An origin that comparisons ignore: any two are equal.
#[derive(Clone, Debug)]
pub(in crate::config) struct UncomparedOrigin(pub(in crate::config) Origin);

impl PartialEq for UncomparedOrigin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for UncomparedOrigin {}
