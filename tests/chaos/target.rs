//! The models that chaos is made of.

/// A model that is asked, and for which a ledger is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// In threads of the server, with items that do harm.
    Threads,
    /// In processes of its own, with items that end them.
    Processes,
    /// One to which nothing may happen.
    Bystander,
}

impl Target {
    pub(super) const ALL: [Self; 3] = [Self::Threads, Self::Processes, Self::Bystander];

    /// Its name.
    pub(super) fn model(self) -> &'static str {
        match self {
            Self::Threads => "m",
            Self::Processes => "p",
            Self::Bystander => "bystander",
        }
    }
}
