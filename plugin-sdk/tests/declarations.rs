//! Tests that the harness rejects the same declarations and outputs as the server.

use plugin_sdk::prelude::*;
use plugin_sdk::testing::{FailureKind, Harness};

/// A model whose only task may lack a declaration, or may return something other than it declares.
struct Misdeclaring {
    declares: bool,
    returns: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MisdeclaringSettings {
    declares: bool,
    #[serde(default)]
    returns: String,
}

impl Model for Misdeclaring {
    type Settings = MisdeclaringSettings;

    fn load(settings: MisdeclaringSettings, _context: &LoadContext) -> Result<Self, LoadError> {
        let MisdeclaringSettings { declares, returns } = settings;
        Ok(Self { declares, returns })
    }

    fn tasks() -> Tasks<Self> {
        Tasks::new()
    }

    fn configured_tasks(&self) -> Tasks<Self> {
        Tasks::new().add(
            "pair",
            MisdeclaringTask {
                declares: self.declares,
            },
        )
    }
}

struct MisdeclaringTask {
    declares: bool,
}

impl Task<Misdeclaring> for MisdeclaringTask {
    type Input = Any;
    type Output = Tensor;

    fn describe(&self) -> TaskInfo {
        let info = TaskInfo::new("Returns a tensor.");
        if self.declares {
            info.output_tensor(TensorInfo::new("pair", DType::Fp32, &[2]))
        } else {
            info
        }
    }

    fn predict(&self, model: &Misdeclaring, batch: Batch<'_, Value<'_>>) -> BatchResult<TensorOutput> {
        let rows = batch.len();
        match model.returns.as_str() {
            "pair" => batch.map(|_| TensorOutput::new("pair", &[2], vec![1.0_f32; 2])),
            "doubles" => batch.map(|_| TensorOutput::new("pair", &[2], vec![1.0_f64; 2])),
            "triple" => batch.map(|_| TensorOutput::new("pair", &[3], vec![1.0_f32; 3])),
            "other" => batch.map(|_| TensorOutput::new("other", &[2], vec![1.0_f32; 2])),
            _ => Ok(Outputs::batch(TensorOutput::new(
                "pair",
                &[rows, 1],
                vec![1.0_f32; rows],
            ))),
        }
    }
}

#[test]
fn the_harness_rejects_models_that_the_server_rejects() {
    let failure =
        Harness::<Misdeclaring>::load(json!({"declares": false})).expect_err("it declares no tensors");
    assert_eq!(
        failure.message,
        "the output of task `pair` has the kind tensors but declares no tensor: add `.output_tensor(…)` in `describe`"
    );
    // A task with `Any` as input accepts tensors only if it declares them, so its input is valid.
    Harness::<Misdeclaring>::load(json!({"declares": true})).expect("it loads");
}

#[test]
fn the_harness_rejects_outputs_that_do_not_match_their_declaration() {
    let run = |returns: &str| {
        let model =
            Harness::<Misdeclaring>::load(json!({"declares": true, "returns": returns})).expect("it loads");
        model.predict("pair", &[json!("a"), json!("b")])
    };
    assert_eq!(
        run("pair"),
        [Ok(json!({"pair": [1.0, 1.0]})), Ok(json!({"pair": [1.0, 1.0]}))]
    );
    for (returns, expected) in [
        (
            "doubles",
            "the plugin's tensor `pair` is FP64 [2], its manifest declares FP32 [2]",
        ),
        (
            "triple",
            "the plugin's tensor `pair` is FP32 [3], its manifest declares FP32 [2]",
        ),
        (
            "other",
            "the plugin's output has a tensor `other`, its manifest declares pair",
        ),
        (
            "rows",
            "the plugin's tensor `pair` is FP32 [1], its manifest declares FP32 [2]",
        ),
    ] {
        for outcome in run(returns) {
            let failure = outcome.expect_err("the output does not match its declaration");
            assert_eq!(
                (failure.kind, &*failure.message),
                (FailureKind::Internal, expected)
            );
        }
    }
}
