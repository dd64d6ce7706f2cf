//! What a test orders, and what it is told.

use std::path::PathBuf;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;

/// One item. `{}` is an echo of nothing.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    /// Comes back, and marks the item in `order` of the report.
    pub value: JsonValue,
    /// What to do with the batch that the item is in.
    #[serde(rename = "do")]
    pub deed: Deed,
    /// How long `sleep` and `busy` take.
    pub ms: u64,
    /// With which code `exit` ends the process.
    pub code: i32,
    /// How much `leak` leaks.
    pub bytes: usize,
    /// What failures and logs say, what is written, and where to connect.
    pub message: String,
    /// The file that `wait` waits for.
    pub path: PathBuf,
    /// The deed is done only while this file is missing, and makes it: a crash that a retry survives.
    pub once: Option<PathBuf>,
    /// What the item weighs in the task `prepared`; 0 counts as 1.
    pub weight: u64,
    /// Which items it may share a batch with in the task `prepared`.
    pub group: u64,
}

/// What a test may order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Deed {
    /// Nothing: the report is the answer.
    #[default]
    Echo,
    /// Block for `ms`.
    Sleep,
    /// Compute on every core for `ms`.
    Busy,
    /// Block until the file `path` exists; `path` with `.reached` appended appears as soon as this does.
    Wait,
    /// Block for ever.
    Hang,
    /// Write `message` to the log, at level info.
    Log,
    /// Print `message` to standard output and standard error.
    Print,
    /// Leak `bytes`, touched.
    Leak,
    /// Log how many processors and threads there are, and the variable that `message` names.
    Describe,
    /// Write `message` to the file `path`; the item fails if that is refused.
    Write,
    /// Connect to the address `message`; the item fails if that is refused.
    Connect,
    /// Fail this item as the client's fault.
    FailItem,
    /// Fail this item as the model's fault.
    FaultItem,
    /// Fail the batch.
    FailBatch,
    /// Fail the batch for want of memory if it has more than one item.
    OutOfMemory,
    /// Return one outcome too few.
    TooFew,
    /// Return one outcome too many.
    TooMany,
    /// Panic with `message`.
    Panic,
    /// Panic with a payload that panics when dropped.
    PanicTwice,
    /// Fail in `prepare`, as the client's fault. Only in the task `prepared`.
    FailInPrepare,
    /// Panic in `prepare`. Only in the task `prepared`.
    PanicInPrepare,
    /// Abort the process in `prepare`. Only in the task `prepared`.
    AbortInPrepare,
    /// Block for ever in `prepare`. Only in the task `prepared`.
    HangInPrepare,
    /// Panic when what `prepare` made is dropped. Only in the task `prepared`.
    PanicInPreparedDrop,
    /// End the process with `code`.
    Exit,
    /// Kill the process, as the system does where memory runs out.
    Kill,
    /// Abort the process.
    Abort,
    /// Write where nobody may.
    Segfault,
    /// Call without end.
    StackOverflow,
}

/// What became of an item.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// As in the order.
    pub value: JsonValue,
    /// How many items the batch had.
    pub batch_size: usize,
    /// The values of all items of the batch, in its order.
    pub order: Vec<JsonValue>,
    /// Number of the batch among those that this loaded model ran, of all tasks, from 0.
    pub batch: u64,
    /// Which worker ran it.
    pub worker: usize,
    /// The setting of that name: tells which configuration answered.
    pub tag: String,
    /// The process that ran it.
    pub pid: u32,
}
