//! Tests of unbatched tasks, and of the details and trials that a model reports.

use std::collections::BTreeMap;

use plugin_sdk::prelude::*;
use plugin_sdk::testing::Harness;

/// A model with one task, which returns its inputs: a scalar, a cache and a sequence.
struct Unbatched;

impl Model for Unbatched {
    type Settings = NoSettings;

    fn load(_settings: NoSettings, _context: &LoadContext) -> Result<Self, LoadError> {
        Ok(Self)
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new().add("echo", Echo)
    }

    fn details(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("runtime".to_owned(), "echo 1.0".to_owned()),
            ("runtime_reason".to_owned(), "ö".repeat(5000)),
        ])
    }
}

struct Echo;

impl Task<Unbatched> for Echo {
    type Input = Tensors;
    type Output = Tensors;

    fn describe(&self) -> TaskInfo {
        let tensors = [
            TensorInfo::new("scalar", DType::Fp32, &[]),
            TensorInfo::new("cache", DType::Int64, &[1, -1, 2]),
            TensorInfo::new("parts", DType::Fp32, &[-1]).sequence(),
        ];
        let info = TaskInfo::new("Returns its input.").unbatched();
        let info = info.trial(Trial::Failed {
            reason: "x".repeat(5000),
        });
        tensors.into_iter().fold(info, |info, tensor| {
            info.input_tensor(tensor.clone()).output_tensor(tensor)
        })
    }

    fn predict(
        &self,
        _model: &Unbatched,
        batch: Batch<'_, TensorsView<'_>>,
    ) -> BatchResult<Vec<TensorOutput>> {
        let copy = |tensor: TensorView<'_>| {
            let shape: Vec<usize> = tensor.shape().iter().map(|size| *size as usize).collect();
            TensorOutput::from_bytes(
                tensor.name().to_owned(),
                tensor.dtype(),
                &shape,
                tensor.data().to_vec(),
            )
        };
        Ok(batch
            .iter()
            .map(|tensors| tensors.iter().map(copy).collect::<Vec<_>>())
            .collect())
    }
}

#[test]
fn scalars_empty_dimensions_and_sequences_are_passed_in_both_directions() {
    let model = Harness::<Unbatched>::load(json!({})).expect("it loads");
    let items = [
        json!({"scalar": 1.5, "cache": [[[1, 2], [3, 4]]]}),
        json!({"scalar": -2.0, "cache": [[]], "parts.0": [], "parts.1": [1.0, 2.0]}),
    ];
    let echoed = model.predict("echo", &items);
    assert_eq!(echoed[0], Ok(items[0].clone()));
    assert_eq!(echoed[1], Ok(items[1].clone()));
    let gap = model.predict("echo", &[json!({"scalar": 1.0, "cache": [[]], "parts.1": [1.0]})]);
    let failure = gap[0].as_ref().expect_err("`parts.0` is missing");
    assert_eq!(failure.message, "unknown tensor `parts.1`");
}

#[test]
fn details_and_trials_are_truncated_to_the_length_that_the_server_accepts() {
    let model = Harness::<Unbatched>::load(json!({})).expect("it loads");
    let manifest = model.manifest();
    assert_eq!(manifest.details["runtime"], "echo 1.0");
    let reason = &manifest.details["runtime_reason"];
    assert!(reason.len() <= 4096 && reason.ends_with("ö…"), "{reason}");
    assert!(manifest.tasks[0].unbatched);
    match &manifest.tasks[0].trial {
        Some(Trial::Failed { reason }) => assert!(reason.len() <= 4096 && reason.ends_with("x…"), "{reason}"),
        other => panic!("got {other:?}, expected a failed trial"),
    }
}
