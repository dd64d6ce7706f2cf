//! What the SDK costs per item: batches of 256 texts of 200 characters, through the C ABI, into a sink that drops everything.

use std::hint::black_box;

use abi_stable::sabi_trait::TD_Opaque;
use abi_stable::sabi_types::RMut;
use abi_stable::std_types::{RSlice, RStr};
use divan::Bencher;
use divan::counter::ItemsCount;
use plugin_abi::codes::kind;
use plugin_abi::{OutputSinkAbi, OutputSinkAbi_TO, RawBatch, RawItem, RawTensor, RawValue};
use plugin_sdk::prelude::*;
use plugin_sdk::testing::Harness;

const ITEMS: usize = 256;
const FLOATS: usize = 384;

fn main() {
    // glibc gives freed memory back to the system after every batch until a process has freed something large once, as any
    // server has. Page faults would be all that is measured.
    drop(black_box(vec![0_u8; 16 << 20]));
    divan::main();
}

struct Bench;

impl Model for Bench {
    type Settings = NoSettings;

    fn load(_settings: NoSettings, _context: &LoadContext) -> Result<Self, LoadError> {
        Ok(Self)
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new()
            .add("one_each", OneEach)
            .add("one_for_all", OneForAll)
            .add("document", Document)
    }
}

struct OneEach;

impl Task<Bench> for OneEach {
    type Input = Text;
    type Output = Tensor;

    fn predict(&self, _model: &Bench, batch: Batch<'_, &str>) -> BatchResult<TensorOutput> {
        let embed = |text: &&str| TensorOutput::new("embedding", &[FLOATS], vec![text.len() as f32; FLOATS]);
        Ok(batch.iter().map(embed).collect())
    }
}

struct OneForAll;

impl Task<Bench> for OneForAll {
    type Input = Text;
    type Output = Tensor;

    fn predict(&self, _model: &Bench, batch: Batch<'_, &str>) -> BatchResult<TensorOutput> {
        let values = vec![batch.len() as f32; batch.len() * FLOATS];
        Ok(Outputs::batch(TensorOutput::new(
            "embedding",
            &[batch.len(), FLOATS],
            values,
        )))
    }
}

struct Document;

#[derive(Deserialize, Serialize, JsonSchema)]
struct Length {
    text: String,
    length: usize,
}

impl Task<Bench> for Document {
    type Input = Text;
    type Output = Json<Length>;

    fn predict(&self, _model: &Bench, batch: Batch<'_, &str>) -> BatchResult<Length> {
        Ok(batch
            .iter()
            .map(|text| Length {
                text: String::new(),
                length: text.len(),
            })
            .collect())
    }
}

struct Nowhere;

impl OutputSinkAbi for Nowhere {
    fn emit(&mut self, _index: u32, value: RawValue<'_>, _flags: u32) -> u32 {
        black_box(value);
        0
    }

    fn emit_batch(&mut self, tensors: RSlice<'_, RawTensor<'_>>) -> u32 {
        black_box(tensors);
        0
    }

    fn fail(&mut self, _index: u32, _kind: u32, message: RStr<'_>) -> u32 {
        panic!("an item failed: {message}")
    }
}

#[divan::bench(args = ["one_each", "one_for_all", "document"])]
fn predict(bencher: Bencher<'_, '_>, task: &str) {
    let harness = Harness::<Bench>::load(json!({})).expect("nothing to load");
    let index = harness
        .manifest()
        .tasks
        .iter()
        .position(|other| other.name == task)
        .expect("declared above");
    let text = "x".repeat(200);
    let value = RawValue {
        kind: kind::TEXT,
        reserved: 0,
        data: RSlice::from(text.as_bytes()),
        media_type: RStr::from(""),
        tensors: RSlice::EMPTY,
        reserved_word: 0,
    };
    let items = vec![
        RawItem {
            value,
            parameters: RStr::from(""),
            prepared: 0,
            reserved: 0
        };
        ITEMS
    ];
    bencher.counter(ItemsCount::new(ITEMS)).bench_local(|| {
        let batch = RawBatch {
            task: index as u32,
            worker: 0,
            items: RSlice::from(&items[..]),
            reserved: 0,
        };
        let mut sink = Nowhere;
        let sink = OutputSinkAbi_TO::from_ptr(RMut::new(&mut sink), TD_Opaque);
        harness
            .abi()
            .predict_batch(batch, sink)
            .into_result()
            .expect("no item fails")
    });
}
