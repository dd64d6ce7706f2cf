//! Identifiers of jobs.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::Timestamp;

/// Identifier of a job: a version 7 UUID, which sorts by the time of its creation and has 74 random bits, so that it cannot be
/// guessed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(Uuid);

impl JobId {
    /// Creates an identifier.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(now: Timestamp) -> Result<Self, getrandom::Error> {
        let mut random = [0; 10];
        getrandom::fill(&mut random)?;
        Ok(Self(
            uuid::Builder::from_unix_timestamp_millis(now.millis(), &random).into_uuid(),
        ))
    }

    /// The identifier as stores keep it.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The identifier as databases with such a type keep it.
    #[cfg(feature = "jobs")]
    pub(super) fn uuid(&self) -> Uuid {
        self.0
    }

    /// Reads what [`JobId::as_bytes`] returned.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

/// The text is not the identifier of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid job id: expected a UUID, such as 01890a5d-ac96-774b-bcce-b302099a8057")]
pub struct InvalidJobId;

impl FromStr for JobId {
    type Err = InvalidJobId;

    /// Parses the hyphenated form, and no other, so that each job has exactly one address.
    fn from_str(text: &str) -> Result<Self, InvalidJobId> {
        let id = Uuid::try_parse(text).map_err(|_| InvalidJobId)?;
        let mut buffer = Uuid::encode_buffer();
        let canonical: &str = id.hyphenated().encode_lower(&mut buffer);
        if canonical == text {
            Ok(Self(id))
        } else {
            Err(InvalidJobId)
        }
    }
}
