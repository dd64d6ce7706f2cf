//! Derives how a model runs the items of a task from the declared shapes and the setting `batch`. Pure; the trial can override
//! the result.
//!
//! If all inputs share a dynamic first dimension, it is assumed to be the batch dimension, which the trial verifies. If every
//! first dimension is fixed to 1, items run one at a time, each as a batch of one. Otherwise there is no batch dimension, and an
//! item is a whole request.

use crate::network::{Dim, TensorSpec, shape_text};
use crate::settings::BatchSetting;

/// How the items of a task are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchMode {
    /// Items are stacked along the first dimension of every tensor.
    Batched,
    /// Items have no batch dimension, as with [`Batched`](Self::Batched), but the model computes one at a time.
    ItemByItem,
    /// An item is a whole request, whose tensors have exactly the declared shapes.
    Unbatched,
}

/// What the declared shapes reveal about a batch dimension.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Declared {
    pub(crate) mode: BatchMode,
    /// Why the mode is not [`BatchMode::Batched`].
    pub(crate) reason: String,
    /// Whether the dimension names alone prove that every tensor has a batch dimension.
    pub(crate) certain: bool,
    /// Name of the dynamic first dimension of the inputs, if there is one.
    pub(crate) name: String,
    /// An output whose first dimension has another name or a fixed size, with that name or size.
    pub(crate) renamed: Option<(String, String)>,
}

impl Declared {
    fn unbatched(reason: impl Into<String>) -> Self {
        Self {
            mode: BatchMode::Unbatched,
            reason: reason.into(),
            certain: true,
            name: String::new(),
            renamed: None,
        }
    }

    /// Why, judging by its name, the dynamic first dimension may count something other than items.
    pub(crate) fn why_not_items(&self) -> Option<String> {
        let name = &self.name;
        if self.looks_like_a_sequence() {
            return Some(format!("the first dimension is called `{name}`"));
        }
        let (output, other) = self.renamed.as_ref()?;
        Some(format!(
            "the first dimension is called `{name}`, but `{other}` in output `{output}`"
        ))
    }

    /// Whether the name of the first dimension suggests a sequence length rather than a batch.
    fn looks_like_a_sequence(&self) -> bool {
        const PARTS: [&str; 12] = [
            "seq", "time", "len", "step", "frame", "token", "node", "point", "edge", "atom", "num_", "word",
        ];
        let name = self.name.to_lowercase();
        !name.contains("batch")
            && (matches!(&*name, "t" | "l" | "s") || PARTS.iter().any(|part| name.contains(part)))
    }
}

/// Derives the mode from the declared shapes and the setting `batch`.
pub(crate) fn declared(inputs: &[TensorSpec], outputs: &[TensorSpec], setting: BatchSetting) -> Declared {
    if setting == BatchSetting::None {
        return Declared::unbatched("`batch` is \"none\"");
    }
    match first_dimension(inputs) {
        Err(reason) => Declared::unbatched(reason),
        Ok(Dim::Fixed(_)) => fixed_to_one(outputs),
        Ok(Dim::Open(name)) => Declared {
            mode: BatchMode::Batched,
            reason: String::new(),
            certain: is_meaningful(&name)
                && outputs.iter().all(
                    |spec| matches!(spec.dims.as_deref(), Some([Dim::Open(first), ..]) if *first == name),
                ),
            renamed: renamed(outputs, &name),
            name,
        },
    }
}

/// Finds the first output whose first dimension has a fixed size, or an explicit name other than that of the batch dimension.
fn renamed(outputs: &[TensorSpec], batch: &str) -> Option<(String, String)> {
    // PyTorch generates names for unnamed dimensions, such as `Reshapeoutput_dim_0`.
    let is_given = |name: &str| is_meaningful(name) && !name.contains("_dim_");
    outputs.iter().find_map(|spec| match spec.dims.as_deref() {
        Some([Dim::Open(first), ..]) if first != batch && is_given(first) && is_given(batch) => {
            Some((spec.name.clone(), first.clone()))
        }
        Some([Dim::Fixed(size), ..]) if is_given(batch) => Some((spec.name.clone(), size.to_string())),
        _ => None,
    })
}

/// Result if all inputs have a batch dimension of 1. Outputs whose first dimension is not fixed to 1 do not have this batch
/// dimension.
fn fixed_to_one(outputs: &[TensorSpec]) -> Declared {
    let other = outputs.iter().find_map(|spec| match spec.dims.as_deref() {
        Some(dims) if dims.first() != Some(&Dim::Fixed(1)) => Some((spec, dims)),
        _ => None,
    });
    if let Some((spec, dims)) = other {
        let (name, dims) = (&spec.name, shape_text(dims));
        return Declared::unbatched(format!(
            "the batch of the inputs is fixed to 1, and output `{name}` is declared as {dims}"
        ));
    }
    Declared {
        mode: BatchMode::ItemByItem,
        reason: "the batch of the model is fixed to 1".to_owned(),
        certain: outputs.iter().all(|spec| spec.dims.is_some()),
        name: String::new(),
        renamed: None,
    }
}

/// The first dimension that all inputs share, or why it cannot be a batch dimension.
fn first_dimension(inputs: &[TensorSpec]) -> Result<Dim, String> {
    let mut shared: Option<(&TensorSpec, &Dim)> = None;
    for spec in inputs {
        let name = &spec.name;
        if spec.sequence {
            return Err(format!("input `{name}` is a sequence"));
        }
        let Some(dims) = spec.dims.as_deref() else {
            return Err(format!("input `{name}` has no declared shape"));
        };
        let Some(first) = dims.first() else {
            return Err(format!("input `{name}` is a scalar"));
        };
        if let Dim::Fixed(size) = first
            && *size != 1
        {
            let shape = shape_text(dims);
            return Err(format!(
                "input `{name}` has the fixed first dimension {size} ({shape})"
            ));
        }
        match shared {
            None => shared = Some((spec, first)),
            Some((other, known)) => match (known, first) {
                (Dim::Open(one), Dim::Open(two))
                    if !is_meaningful(one) || !is_meaningful(two) || one == two =>
                {
                    // Prefer a meaningful name.
                    if !is_meaningful(one) {
                        shared = Some((spec, first));
                    }
                }
                (one, two) if one == two => {}
                (one, two) => {
                    return Err(format!(
                        "the first dimension is {one} in input `{}` and {two} in input `{name}`",
                        other.name
                    ));
                }
            },
        }
    }
    let Some((_, first)) = shared else {
        return Err("the model has no inputs".to_owned());
    };
    if let Dim::Open(batch) = first
        && is_meaningful(batch)
    {
        let repeats = |spec: &&TensorSpec| spec.dims.iter().flatten().skip(1).any(|dim| dim == first);
        if let Some(spec) = inputs.iter().find(repeats) {
            let (name, shape) = (&spec.name, shape_text(spec.dims.as_deref().unwrap_or_default()));
            return Err(format!("input `{name}` has its first dimension twice ({shape})"));
        }
    }
    Ok(first.clone())
}

/// Whether equal dimension names imply equal sizes. Some exporters write placeholders or generated numbers instead of names.
pub(crate) fn is_meaningful(name: &str) -> bool {
    let is_placeholder = matches!(
        name.to_lowercase().as_str(),
        "none" | "unknown" | "dynamic" | "any" | "unk"
    ) || !name.chars().any(char::is_alphabetic);
    let is_numbered = ["unk__", "unk_", "DynamicDimension."]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        || name.contains("_dynamic_axes_");
    !is_placeholder && !is_numbered
}

#[cfg(test)]
mod tests {
    use plugin_sdk::DType;

    use super::*;
    use crate::values::ElementType;

    /// A spec with a shape such as `"N,3,?"`. The empty string stands for a scalar, and `"-"` for an undeclared shape.
    fn spec(name: &str, shape: &str) -> TensorSpec {
        let dim = |dim: &str| dim.parse().map_or_else(|_| Dim::Open(dim.to_owned()), Dim::Fixed);
        let dims = match shape {
            "-" => None,
            "" => Some(Vec::new()),
            shape => Some(shape.split(',').map(dim).collect()),
        };
        TensorSpec {
            name: name.to_owned(),
            file_name: name.to_owned(),
            dtype: DType::Fp32,
            held: ElementType::F32,
            declared: rten_onnx::onnx::DataType::FLOAT,
            dims,
            sequence: false,
            map: None,
            index: 0,
        }
    }

    fn mode_of(inputs: &[&str], outputs: &[&str]) -> (BatchMode, bool, String) {
        let specs = |sort: &str, shapes: &[&str]| -> Vec<_> {
            let named = shapes.iter().enumerate();
            named
                .map(|(index, shape)| spec(&format!("{sort}{index}"), shape))
                .collect()
        };
        let declared = declared(&specs("in", inputs), &specs("out", outputs), BatchSetting::Auto);
        (declared.mode, declared.certain, declared.reason)
    }

    #[test]
    fn a_shared_open_first_dimension_is_the_batch() {
        for (inputs, outputs, certain) in [
            (&["batch,length", "batch,length"][..], &["batch,4"][..], true),
            (&["batch,length"], &["rows,4"], false),
            (&["N,3,H,W"], &["-"], false),
            (&["?,3,?,?"], &["?,4"], false),
            (&["unk__1,3", "unk__7,2"], &["unk__9,4"], false),
            (&["DynamicDimension.0,3", "DynamicDimension.1,2"], &["1"], false),
            (&["batch,3", "?,2"], &["batch,2"], true),
        ] {
            assert_eq!(
                mode_of(inputs, outputs),
                (BatchMode::Batched, certain, String::new()),
                "{inputs:?}"
            );
        }
    }

    #[test]
    fn an_output_whose_first_dimension_has_another_name_is_found() {
        let found = |input: &str, output: &str| {
            let specs = [spec("x", input)];
            declared(&specs, &[spec("y", output)], BatchSetting::Auto).renamed
        };
        assert_eq!(
            found("values", "distinct"),
            Some(("y".to_owned(), "distinct".to_owned()))
        );
        assert_eq!(found("rows,3", "1,3"), Some(("y".to_owned(), "1".to_owned())));
        for (input, output) in [
            ("batch,3", "batch,4"),
            ("batch,3", "?,4"),
            ("?,3", "rows,4"),
            ("batch,3", "Gemmy_dim_0,4"),
        ] {
            assert_eq!(found(input, output), None, "{input} to {output}");
        }
    }

    #[test]
    fn a_first_dimension_of_one_everywhere_is_a_batch_of_one() {
        for (outputs, certain) in [(&["1,4", "1"][..], true), (&["-"], false)] {
            let (mode, is_certain, _) = mode_of(&["1,3,8,8", "1,2"], outputs);
            assert_eq!(
                (mode, is_certain),
                (BatchMode::ItemByItem, certain),
                "{outputs:?}"
            );
        }
        for outputs in ["n,7", "4", ""] {
            assert_eq!(
                mode_of(&["1,3,8,8"], &[outputs]).0,
                BatchMode::Unbatched,
                "{outputs:?}"
            );
        }
    }

    #[test]
    fn inputs_without_a_common_dimension_for_items_are_whole_requests() {
        for (inputs, reason) in [
            (
                &["N,576", "2,N,128", ""][..],
                "input `in1` has the fixed first dimension 2 ([2, N, 128])",
            ),
            (&["N,4", ""], "input `in1` is a scalar"),
            (&["-"], "input `in0` has no declared shape"),
            (&["0,4"], "input `in0` has the fixed first dimension 0 ([0, 4])"),
            (
                &["images,3", "texts,77"],
                "the first dimension is images in input `in0` and texts in input `in1`",
            ),
            (
                &["1,3,8,8", "boxes,5"],
                "the first dimension is 1 in input `in0` and boxes in input `in1`",
            ),
            (
                &["nodes,8", "nodes,nodes"],
                "input `in1` has its first dimension twice ([nodes, nodes])",
            ),
            (&[], "the model has no inputs"),
        ] {
            let (mode, _, given) = mode_of(inputs, &["N,4"]);
            assert_eq!((mode, &*given), (BatchMode::Unbatched, reason), "{inputs:?}");
        }
    }
}
