//! Measures the overhead per batch of `isolation = "process"` compared with a thread.
//!
//! The model returns immediately, so that only the communication is measured. Each batch runs in a child process, in a thread
//! of this process, and as a plain copy of the same bytes, in turns, so that all three run under the same conditions. Times are
//! medians.
//!
//! The child processes run this same program.

#![allow(clippy::print_stdout, reason = "the report is the output")]

use std::hint::black_box;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inference_server::clock;
use inference_server::config::{OnCrash, ProcessSettings};
use inference_server::error::ItemError;
use inference_server::isolation::confine::{Confinement, ResourceAllocator};
use inference_server::isolation::{
    CHILD_COMMAND, IsolatedModel, IsolationOptions, Program, Setup, run_child,
};
use inference_server::metrics::{Buckets, Metrics};
use inference_server::model::{BatchError, BatchItem, Model, OutputSink, PreparedItem, SinkStatus};
use inference_server::resources::Resources;
use inference_server::values::{DType, ItemInput, Tensor, Value};
use plugin_abi::manifest::{LoadContext, ModelManifest, TaskManifest};

/// A batch to measure.
struct Case {
    name: &'static str,
    items: usize,
    item: Value,
    /// The task, which determines the outputs.
    task: usize,
    /// Length of the output of one item.
    output: usize,
}

/// Returns a short text for each item.
const LABEL: usize = 0;
/// Returns a row of 384 floats for each item.
const EMBEDDING: usize = 1;

const DIMENSIONS: usize = 384;
const MEGABYTE: usize = 1 << 20;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(CHILD_COMMAND) {
        return run_child(|_| Ok(Arc::new(Instant::new())));
    }
    let process = match start() {
        Ok(model) => model,
        Err(error) => {
            eprintln!("cannot start the model in a worker process: {error}");
            return ExitCode::FAILURE;
        }
    };
    let thread = Instant::new();
    println!(
        "{:<34}{:>10}{:>12}{:>12}{:>12}{:>12}{:>14}",
        "batch", "bytes", "thread µs", "process µs", "p99 µs", "copy µs", "overhead µs"
    );
    for case in cases() {
        measure(&case, &thread, &process);
    }
    ExitCode::SUCCESS
}

fn cases() -> Vec<Case> {
    let text = |length: usize| Value::Text(Bytes::from("x".repeat(length)));
    let bytes = |length: usize| Value::Bytes {
        data: Bytes::from(vec![7; length]),
        media_type: "image/png".to_owned(),
    };
    let floats = || {
        let data = Bytes::from(vec![0; DIMENSIONS * 4]);
        let tensor = Tensor::new("numbers", DType::Fp32, vec![DIMENSIONS as u64], data);
        Value::Tensors(vec![tensor.expect("four bytes for each float")])
    };
    let case = |name, items, item, task, output| Case {
        name,
        items,
        item,
        task,
        output,
    };
    let mut cases = vec![
        case("1 × 200 B text → label", 1, text(200), LABEL, 5),
        case("32 × 200 B text → label", 32, text(200), LABEL, 5),
        case(
            "32 × 200 B text → 1.5 KB tensor",
            32,
            text(200),
            EMBEDDING,
            DIMENSIONS * 4,
        ),
        case(
            "32 × 1.5 KB tensor → tensor",
            32,
            floats(),
            EMBEDDING,
            DIMENSIONS * 4,
        ),
        case("8 × 1 MB image → label", 8, bytes(MEGABYTE), LABEL, 5),
    ];
    let sweep = [
        ("1 × 4 KiB", 4),
        ("1 × 15 KiB", 15),
        ("1 × 17 KiB", 17),
        ("1 × 32 KiB", 32),
        ("1 × 128 KiB", 128),
        ("1 × 1 MiB", 1024),
    ];
    cases.extend(sweep.map(|(name, kib)| case(name, 1, bytes(kib << 10), LABEL, 5)));
    cases
}

/// Duration of the measurement of each case.
const MEASURE_DURATION: Duration = Duration::from_secs(3);

fn measure(case: &Case, thread: &dyn Model, process: &dyn Model) {
    let input = ItemInput {
        value: case.item.clone(),
        parameters: Bytes::new(),
    };
    // Each item has its own bytes, as items of different requests do.
    let inputs: Vec<ItemInput> = (0..case.items).map(|_| deep_copy(&input)).collect();
    let batch: Vec<BatchItem<'_>> = inputs
        .iter()
        .map(|input| BatchItem {
            input,
            prepared: None,
        })
        .collect();
    let bytes = inputs.iter().map(length).sum::<usize>() + case.items * case.output;
    let (source, mut target) = (vec![1u8; bytes], vec![0u8; bytes]);
    let mut times: [Vec<Duration>; 3] = Default::default();
    let end = clock::now() + MEASURE_DURATION;
    while clock::now() < end || times[0].len() < 50 {
        times[0].push(timed(|| run(thread, case, &batch)));
        times[1].push(timed(|| run(process, case, &batch)));
        times[2].push(timed(|| {
            black_box(&mut target).copy_from_slice(black_box(&source))
        }));
    }
    times.iter_mut().for_each(|times| times.sort());
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let median = |times: &[Duration]| micros(times[times.len() / 2]);
    let [in_thread, in_process, copy] = [median(&times[0]), median(&times[1]), median(&times[2])];
    println!(
        "{:<34}{:>10}{:>12.1}{:>12.1}{:>12.1}{:>12.1}{:>14.1}",
        case.name,
        bytes,
        in_thread,
        in_process,
        micros(times[1][times[1].len() * 99 / 100]),
        copy,
        in_process - in_thread
    );
}

fn timed(run: impl FnOnce()) -> Duration {
    let start = clock::now();
    run();
    clock::now() - start
}

fn run(model: &dyn Model, case: &Case, batch: &[BatchItem<'_>]) {
    let mut sink = Counter(0);
    let result = model.predict_batch(0, case.task, batch, &mut sink);
    assert_eq!(
        (result, sink.0),
        (Ok(()), case.items),
        "every item has an outcome"
    );
}

fn length(input: &ItemInput) -> usize {
    match &input.value {
        Value::Text(data) | Value::Json(data) | Value::Bytes { data, .. } => data.len(),
        Value::Tensors(tensors) => tensors.iter().map(|tensor| tensor.data().len()).sum(),
    }
}

fn deep_copy(input: &ItemInput) -> ItemInput {
    let copy = |data: &Bytes| Bytes::copy_from_slice(data);
    let value = match &input.value {
        Value::Text(text) => Value::Text(copy(text)),
        Value::Json(json) => Value::Json(copy(json)),
        Value::Bytes { data, media_type } => Value::Bytes {
            data: copy(data),
            media_type: media_type.clone(),
        },
        Value::Tensors(tensors) => Value::Tensors(tensors.clone()),
    };
    ItemInput {
        value,
        parameters: Bytes::new(),
    }
}

fn start() -> Result<IsolatedModel, Box<dyn std::error::Error>> {
    let metrics = Metrics::new(Buckets::NONE)?;
    let options = IsolationOptions {
        program: Program {
            executable: std::env::current_exe()?,
            arguments: vec![CHILD_COMMAND.to_owned()],
        },
        setup: Setup {
            parent: std::process::id(),
            log_level: "off".to_owned(),
            confinement: Confinement::default(),
            file: PathBuf::new(),
            context: LoadContext::default(),
        },
        settings: ProcessSettings {
            on_crash: OnCrash::Fail,
            predict_timeout: Duration::from_secs(60),
            restart_delay: Duration::from_secs(1),
            max_restart_delay: Duration::from_secs(1),
        },
        resources: Resources::default(),
        resource_allocator: Arc::new(ResourceAllocator::new(std::env::temp_dir())),
        workers: 1,
        prepare_channels: 1,
        start_timeout: Duration::from_secs(60),
        warm_up: Box::new(|_| Ok(())),
        files: Arc::new(()),
    };
    Ok(IsolatedModel::start(options, metrics.workers("instant"))?)
}

/// A model that returns immediately.
struct Instant {
    manifest: ModelManifest,
    row: Vec<u8>,
}

impl Instant {
    fn new() -> Self {
        let task = |name: &str| TaskManifest {
            name: name.to_owned(),
            ..TaskManifest::default()
        };
        Self {
            manifest: ModelManifest {
                tasks: vec![task("label"), task("embedding")],
                ..ModelManifest::default()
            },
            row: vec![0; DIMENSIONS * 4],
        }
    }
}

impl Model for Instant {
    fn manifest(&self) -> &ModelManifest {
        &self.manifest
    }

    fn prepare(&self, _task: usize, _item: &ItemInput) -> Result<PreparedItem, ItemError> {
        Err(ItemError::Unsupported(
            "this model does not prepare items".to_owned(),
        ))
    }

    fn predict_batch(
        &self,
        _worker: usize,
        task: usize,
        items: &[BatchItem<'_>],
        sink: &mut dyn OutputSink,
    ) -> Result<(), BatchError> {
        if task == LABEL {
            for index in 0..items.len() {
                sink.emit(index, Value::Text(Bytes::from_static(b"label")), false);
            }
            return Ok(());
        }
        let shape = vec![items.len() as u64, DIMENSIONS as u64];
        let data = Bytes::from(self.row.repeat(items.len()));
        let tensor = Tensor::new("embedding", DType::Fp32, shape, data)
            .map_err(|error| BatchError::Failed(ItemError::Fault(error.to_string())))?;
        sink.emit_batch(vec![tensor]);
        Ok(())
    }
}

/// Counts items with an outcome.
struct Counter(usize);

impl OutputSink for Counter {
    fn emit(&mut self, _index: usize, value: Value, _more: bool) -> SinkStatus {
        black_box(value);
        self.0 += 1;
        SinkStatus::Accepted
    }

    fn emit_batch(&mut self, tensors: Vec<Tensor>) -> SinkStatus {
        self.0 += tensors
            .first()
            .and_then(|tensor| tensor.shape().first())
            .map_or(0, |&rows| rows as usize);
        SinkStatus::Accepted
    }

    fn fail(&mut self, _index: usize, _error: ItemError) -> SinkStatus {
        SinkStatus::Rejected
    }
}
