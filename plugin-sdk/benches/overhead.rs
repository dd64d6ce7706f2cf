//! Overhead of the SDK per item: batches of 256 texts of 200 characters through the C ABI, into a sink that discards outputs.

use std::hint::black_box;

use divan::Bencher;
use divan::counter::ItemsCount;
use plugin_sdk::prelude::*;
use plugin_sdk::testing::Harness;

const ITEMS: usize = 256;
const FLOATS: usize = 384;

fn main() {
    // Until a process has freed a large allocation once, as any server has, glibc returns freed memory to the system after
    // every batch, and page faults would dominate the measurement.
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

#[divan::bench(args = ["one_each", "one_for_all", "document"])]
fn predict(bencher: Bencher<'_, '_>, task: &str) {
    let model = Harness::<Bench>::load(json!({})).expect("no settings required");
    let bencher = bencher.counter(ItemsCount::new(ITEMS));
    let items = vec![json!("x".repeat(200)); ITEMS];
    model.repeat(task, &items, |run| bencher.bench_local(run));
}
