//! Features of a node: the properties, other than the data, that its results may depend on. The table of verified operators
//! consists of such features.

use rten_onnx::onnx::{AttributeProto, DataType, NodeProto};

use super::attributes::{Attributes, axis};
use super::fact::{Bounds, Fact};

/// Operators whose inputs all have the same meaning.
const VARIADIC: [&str; 6] = ["Concat", "Einsum", "Max", "Mean", "Min", "Sum"];

/// Name and value of a feature. A name may occur more than once, with different values.
pub(crate) type Feature = (String, String);

/// The features of a node. An input whose fact is `None` is absent.
pub(crate) fn features(node: &NodeProto, opset: i64, inputs: &[Option<Fact>]) -> Vec<Feature> {
    let operator = node.op_type.as_deref().unwrap_or_default();
    let mut features = Vec::new();
    if VARIADIC.contains(&operator) {
        let count = match inputs.len() {
            count @ 0..=2 => count.to_string(),
            _ => "many".to_owned(),
        };
        features.push(("inputs".to_owned(), count));
    }
    for (index, input) in inputs.iter().enumerate() {
        let suffix = match VARIADIC.contains(&operator) {
            true => "s".to_owned(),
            false => format!(" {index}"),
        };
        let Some(fact) = input else { continue };
        let datatype = if fact.loose {
            LOOSE.to_owned()
        } else {
            type_text(fact.datatype)
        };
        features.push((format!("type{suffix}"), datatype));
        features.push((format!("rank{suffix}"), rank_text(fact)));
        let source = if fact.constant { "constant" } else { "computed" };
        features.push((format!("source{suffix}"), source.to_owned()));
    }
    let outputs: String = node
        .output
        .iter()
        .map(|name| if name.is_empty() { '0' } else { '1' })
        .collect();
    features.push(("outputs".to_owned(), outputs_text(operator, &outputs)));
    for attribute in &node.attribute {
        let name = attribute.name.as_deref().unwrap_or_default();
        let class = match name {
            "to" if loosens(node, inputs) => LOOSE.to_owned(),
            "noop_with_empty_axes" if has_axes(node, inputs) => "without effect".to_owned(),
            _ => attribute_class(name, attribute),
        };
        features.push((format!("attribute {name}"), class));
    }
    features.extend(relations(node, opset, inputs));
    features.sort();
    features.dedup();
    features
}

/// Name in the table of the datatype BOOL if any nonzero integer represents true.
const LOOSE: &str = "BOOL by value";

/// Operators that preserve such BOOL values.
const PASSING: [&str; 14] = [
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "GatherElements",
    "GatherND",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// Whether BOOL outputs of a node may represent true as an integer other than 1.
pub(super) fn loosens(node: &NodeProto, inputs: &[Option<Fact>]) -> bool {
    let fact = |index: usize| inputs.get(index).and_then(Option::as_ref);
    match node.op_type.as_deref().unwrap_or_default() {
        // The runtime does not normalize integers when it casts them to BOOL.
        "Cast" => {
            let integer = fact(0).is_some_and(|fact| match fact.datatype {
                Some(DataType::BOOL) => fact.loose,
                Some(DataType::INT32 | DataType::INT64 | DataType::INT8 | DataType::UINT8) => {
                    let bounds = fact.bounds();
                    bounds.low < 0 || bounds.high > 1
                }
                _ => false,
            });
            integer && Attributes::of(node).datatype("to") == Some(DataType::BOOL)
        }
        operator => PASSING.contains(&operator) && inputs.iter().flatten().any(|input| input.loose),
    }
}

fn type_text(datatype: Option<DataType>) -> String {
    datatype.map_or("unknown".to_owned(), |datatype| datatype.to_string())
}

fn rank_text(fact: &Fact) -> String {
    fact.rank().map_or("unknown".to_owned(), |rank| rank.to_string())
}

/// Pattern of the outputs in use.
fn outputs_text(operator: &str, used: &str) -> String {
    match operator {
        // These have any number of outputs.
        "Split" | "If" | "Loop" | "Scan" => "any".to_owned(),
        _ => used.trim_end_matches('0').to_owned(),
    }
}

/// Operators that broadcast their inputs.
const BROADCASTING: [&str; 18] = [
    "Add",
    "And",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Sum",
    "Where",
];

/// Features that involve several inputs, or an input and an attribute.
fn relations(node: &NodeProto, opset: i64, inputs: &[Option<Fact>]) -> Vec<Feature> {
    let operator = node.op_type.as_deref().unwrap_or_default();
    let mut relations = Vec::new();
    let fact = |index: usize| inputs.get(index).and_then(Option::as_ref);
    let mut add = |name: &str, value: &str| relations.push((name.to_owned(), value.to_owned()));
    match operator {
        _ if BROADCASTING.contains(&operator) => {
            let present = || inputs.iter().flatten();
            let mut names: Vec<_> = node.input.iter().filter(|name| !name.is_empty()).collect();
            names.sort();
            if names.windows(2).any(|pair| pair[0] == pair[1]) {
                add("repeated input", "yes");
            }
            if present().all(|input| input.rank().is_none_or(|rank| rank == 0)) {
                add("only scalars", "yes");
            }
            // The runtime elides operations with a neutral constant (0 or 1) and has a fast path for division by a single
            // element. In both cases the result may lack dimensions of that operand.
            let last = inputs.len().saturating_sub(1);
            let wide = inputs.iter().enumerate().any(|(index, input)| {
                let Some(single) = input.as_ref().filter(|input| may_be_single(input)) else {
                    return false;
                };
                let above = |other: &Fact| match (single.rank(), other.rank()) {
                    (Some(rank), Some(other)) => rank > other,
                    (rank, _) => rank != Some(0),
                };
                let matters = single.constant || index == last && matches!(operator, "Div" | "Pow");
                matters && present().any(above)
            });
            if wide {
                add("one wide element", "yes");
            }
        }
        "Conv" | "ConvTranspose" | "MaxPool" | "AveragePool" => {
            let kernel = kernel(node, fact(1));
            if operator.starts_with("Conv") {
                let odd = kernel
                    .as_ref()
                    .map(|kernel| kernel.iter().all(|size| size % 2 == 1));
                add("kernel", odd.map_or("unknown", |odd| choose(odd, "odd", "even")));
            }
            let attributes = Attributes::of(node);
            let same = attributes
                .text("auto_pad")
                .is_some_and(|padding| padding.starts_with("SAME"));
            let strides = attributes.ints("strides").unwrap_or_default();
            let above =
                kernel.is_none_or(|kernel| strides.iter().zip(kernel).any(|(stride, size)| *stride > size));
            if same && above && !strides.is_empty() {
                add("stride above kernel", "yes");
            }
        }
        "Resize" | "Upsample" => {
            let scales = fact(if operator == "Resize" { 3 } else { 1 }).or(fact(2));
            let count = scales.map(Fact::count).and_then(Bounds::value);
            if let (Some(rank), Some(count)) = (fact(0).and_then(Fact::rank), count) {
                add("resized dimensions", choose(count == rank as i64, "all", "some"));
            }
        }
        "Softmax" | "LogSoftmax" => {
            // Before opset 13, all dimensions from `axis` on are normalized together.
            let old = opset < 13;
            let position = Attributes::of(node).int_or("axis", if old { 1 } else { -1 });
            let rank = fact(0).and_then(Fact::rank);
            let last =
                rank.is_some_and(|rank| axis(position, rank).is_some_and(|position| position + 1 == rank));
            // The runtime defaults to the last dimension in every opset.
            let class = match (old, rank, last) {
                (false, ..) => "one",
                (true, Some(_), true) => "the last one",
                (true, ..) => "several",
            };
            add("normalized dimensions", class);
        }
        // The runtime takes the steps for axes if it overwrites its input and there are no axes.
        "Slice" if fact(4).is_some() && fact(3).is_none() => add("steps without axes", "yes"),
        "Scatter" | "ScatterElements" => {
            add(
                "indices",
                choose(covers_other_dimensions(node, inputs), "covering", "other"),
            );
        }
        _ if operator == "Squeeze" || operator.starts_with("Reduce") => {
            if let Some(axes) = fact(1) {
                let count = axes.count();
                let class = choose(count.low > 0, "some", choose(count.high == 0, "none", "unknown"));
                add("axes", class);
            }
        }
        _ => {}
    }
    relations
}

/// Whether at least one axis is specified.
fn has_axes(node: &NodeProto, inputs: &[Option<Fact>]) -> bool {
    let axes = inputs.get(1).and_then(Option::as_ref);
    let in_attribute = Attributes::of(node).ints("axes");
    in_attribute.is_some_and(|axes| !axes.is_empty()) || axes.is_some_and(|axes| axes.count().low > 0)
}

/// Whether a tensor may have exactly one element.
fn may_be_single(fact: &Fact) -> bool {
    let can_be_1 = |dim: &Bounds| dim.low <= 1 && dim.high >= 1;
    fact.shape.as_ref().is_none_or(|shape| shape.iter().all(can_be_1))
}

/// Kernel size in each spatial dimension.
fn kernel(node: &NodeProto, weight: Option<&Fact>) -> Option<Vec<i64>> {
    if let Some(shape) = Attributes::of(node).ints("kernel_shape") {
        return Some(shape.to_vec());
    }
    let shape = weight?.shape.as_ref()?.get(2..)?;
    shape.iter().map(|dim| dim.value()).collect()
}

/// Whether the indices of a scatter have the same size as the data in every dimension except the scatter axis.
fn covers_other_dimensions(node: &NodeProto, inputs: &[Option<Fact>]) -> bool {
    let shape = |index: usize| inputs.get(index)?.as_ref()?.shape.as_ref();
    let (Some(data), Some(indices)) = (shape(0), shape(1)) else {
        return false;
    };
    let axis = axis(Attributes::of(node).int_or("axis", 0), data.len());
    let mut pairs = data.iter().zip(indices).enumerate();
    data.len() == indices.len()
        && pairs
            .all(|(index, (data, indices))| Some(index) == axis || data.value().is_some() && data == indices)
}

/// Class of an attribute's value. Values of the same class are verified together.
fn attribute_class(name: &str, attribute: &AttributeProto) -> String {
    let ints = &attribute.ints;
    let text = match name {
        "to" | "dtype" | "output_dtype" => {
            let code = attribute.i.and_then(|code| i32::try_from(code).ok());
            return type_text(code.map(DataType));
        }
        "axis" | "batch_axis" | "time_axis" | "start" | "end" | "k" if attribute.i.is_some() => {
            sign(attribute.i.unwrap_or_default() < 0)
        }
        "hidden_size"
        | "num_heads"
        | "kv_num_heads"
        | "q_num_heads"
        | "blocksize"
        | "block_size"
        | "num_outputs"
        | "K"
        | "N"
        | "local_window_size"
        | "rotary_embedding_dim"
        | "seed"
        | "perm"
        | "kernel_shape"
        | "output_shape" => "any",
        "strides" | "dilations" => choose(ints.iter().all(|value| *value == 1), "all 1", "others"),
        "output_padding" => choose(ints.iter().all(|value| *value == 0), "all 0", "others"),
        "pads" => pads(ints),
        "equation" => return equation(attribute.s.as_deref().unwrap_or_default()),
        _ => return general_class(attribute),
    };
    text.to_owned()
}

fn choose<'a>(condition: bool, yes: &'a str, no: &'a str) -> &'a str {
    if condition { yes } else { no }
}

fn sign(negative: bool) -> &'static str {
    choose(negative, "negative", "not negative")
}

fn pads(pads: &[i64]) -> &'static str {
    let (begins, ends) = pads.split_at(pads.len() / 2);
    if pads.iter().all(|pad| *pad == 0) {
        "all 0"
    } else if pads.iter().any(|pad| *pad < 0) {
        "some negative"
    } else {
        choose(begins == ends, "symmetric", "asymmetric")
    }
}

/// Class of an attribute that has no rule specific to its name.
fn general_class(attribute: &AttributeProto) -> String {
    if let Some(value) = attribute.i {
        return match value {
            0 | 1 => value.to_string(),
            _ => choose(value < 0, "negative", "above 1").to_owned(),
        };
    }
    if let Some(value) = attribute.f {
        let class = if value.is_nan() {
            "NaN"
        } else if value == 0.0 {
            "0"
        } else {
            choose(value < 0.0, "negative", "positive")
        };
        return class.to_owned();
    }
    if let Some(text) = &attribute.s {
        return format!("\"{text}\"");
    }
    if let Some(tensor) = &attribute.t {
        return type_text(tensor.data_type);
    }
    if attribute.g.is_some() {
        return "graph".to_owned();
    }
    if !attribute.strings.is_empty() {
        return attribute.strings.join(", ");
    }
    if !attribute.ints.is_empty() {
        return sign(attribute.ints.iter().any(|value| *value < 0)).to_owned();
    }
    choose(attribute.floats.is_empty(), "empty", "any").to_owned()
}

/// Form of an `Einsum` equation: the number of terms, and its special properties.
fn equation(equation: &str) -> String {
    let equation: String = equation.split_whitespace().collect();
    let (inputs, output) = match equation.split_once("->") {
        Some((inputs, output)) => (inputs, Some(output)),
        None => (&*equation, None),
    };
    let terms: Vec<_> = inputs.split(',').collect();
    let repeats = |term: &str| {
        let letters = || term.chars().filter(|letter| letter.is_alphabetic());
        letters().any(|letter| letters().filter(|other| *other == letter).count() > 1)
    };
    let mut form = vec![match terms.len() {
        1 => "1 term".to_owned(),
        2 => "2 terms".to_owned(),
        _ => "3 or more terms".to_owned(),
    }];
    if output.is_none() {
        form.push("implicit output".to_owned());
    }
    if equation.contains("...") {
        form.push("ellipsis".to_owned());
    }
    if terms.iter().any(|term| repeats(term)) {
        form.push("diagonal".to_owned());
    }
    form.join(", ")
}
