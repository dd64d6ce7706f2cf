//! Input and output of the tasks: commands and reports.

use std::path::PathBuf;

use plugin_sdk::prelude::*;
use plugin_sdk::serde_json::Value as JsonValue;

/// One item. All fields are optional.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Command {
    /// Returned in the report, and identifies the item in `order` of the report.
    pub value: JsonValue,
    /// Action to perform.
    #[serde(rename = "do")]
    pub action: Action,
    /// Duration of `sleep` and `busy`.
    pub ms: u64,
    /// Exit code of `exit`.
    pub code: i32,
    /// Number of bytes that `leak` leaks.
    pub bytes: usize,
    /// Text of errors, log records and files, or the address to connect to.
    pub message: String,
    /// File that `wait` waits for or `write` writes.
    pub path: PathBuf,
    /// File that is created when the action is performed. If it exists, the action is skipped, so that a retry succeeds.
    pub once: Option<PathBuf>,
    /// Weight of the item in the task `prepared`. 0 counts as 1.
    pub weight: u64,
    /// Group of the item in the task `prepared`.
    pub group: u64,
}

/// Action that an item requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Return only the report.
    #[default]
    Echo,
    /// Block for `ms`.
    Sleep,
    /// Compute on every core for `ms`.
    Busy,
    /// Create the file `path` with `.reached` appended, then block until `path` exists.
    Wait,
    /// Block forever.
    Hang,
    /// Log `message` at level info.
    Log,
    /// Print `message` to standard output and standard error.
    Print,
    /// Leak `bytes` of resident memory.
    Leak,
    /// Log the number of processors and threads, and the environment variable `message`.
    Describe,
    /// Write `message` to the file `path`. The item fails if that fails.
    Write,
    /// Connect to the address `message`. The item fails if that fails.
    Connect,
    /// Fail this item with an error of the client.
    FailItem,
    /// Fail this item with an error of the model.
    FaultItem,
    /// Fail the batch.
    FailBatch,
    /// Fail the batch with an out-of-memory error if it has more than one item.
    OutOfMemory,
    /// Return one outcome too few.
    TooFew,
    /// Return one outcome too many.
    TooMany,
    /// Panic with `message`.
    Panic,
    /// Panic with a payload that panics when dropped.
    PanicTwice,
    /// Fail in `prepare` with an error of the client. Only in the task `prepared`.
    FailInPrepare,
    /// Panic in `prepare`. Only in the task `prepared`.
    PanicInPrepare,
    /// Abort the process in `prepare`. Only in the task `prepared`.
    AbortInPrepare,
    /// Block forever in `prepare`. Only in the task `prepared`.
    HangInPrepare,
    /// Panic when the prepared item is dropped. Only in the task `prepared`.
    PanicInPreparedDrop,
    /// Exit the process with `code`.
    Exit,
    /// Kill the process with SIGKILL, as the kernel does when memory runs out.
    Kill,
    /// Abort the process.
    Abort,
    /// Write to an unmapped address.
    Segfault,
    /// Recurse until the stack overflows.
    StackOverflow,
}

/// Report of an item.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Report {
    /// Value of the command.
    pub value: JsonValue,
    /// Number of items in the batch.
    pub batch_size: usize,
    /// Values of all items of the batch, in the order of the batch.
    pub order: Vec<JsonValue>,
    /// Number of batches of all tasks that this loaded model ran before this one.
    pub batch: u64,
    /// Index of the worker that ran the batch.
    pub worker: usize,
    /// The setting `tag`, which identifies the configuration of the model.
    pub tag: String,
    /// ID of the process that ran the batch.
    pub pid: u32,
}
