//! The models of the test.

/// A model for which a ledger is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// Runs in threads of the server, with items that cause faults.
    Threads,
    /// Runs in dedicated processes, with items that terminate them.
    Processes,
    /// Must not be affected by the other targets.
    Bystander,
}

impl Target {
    pub(super) const ALL: [Self; 3] = [Self::Threads, Self::Processes, Self::Bystander];

    /// Returns the name of the model.
    pub(super) fn model(self) -> &'static str {
        match self {
            Self::Threads => "m",
            Self::Processes => "p",
            Self::Bystander => "bystander",
        }
    }
}
