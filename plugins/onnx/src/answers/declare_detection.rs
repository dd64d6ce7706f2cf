//! Builds a detector from the settings of a detection task.

use plugin_sdk::{LoadContext, LoadError};

use super::boxes::{BoxFormat, Coordinates};
use super::declare::Outputs;
use super::detection::{Detector, Form, RowFormat};
use super::settings::DetectionSettings;
use crate::plan::Keys;
use crate::ranking::read_labels;
use crate::settings::{Activation, TaskSettings};

const SCORE_THRESHOLD: f32 = 0.25;
const IOU_THRESHOLD: f32 = 0.45;

/// Builds the detector. Takes `labels`, `activation` and `score_threshold` from the settings of the task.
pub(crate) fn detector(
    written: &DetectionSettings,
    task: &mut TaskSettings,
    outputs: Outputs<'_>,
    keys: &Keys<'_>,
    context: &LoadContext,
) -> Result<Detector, LoadError> {
    let key = |setting: &str| keys.of(&format!("detection.{setting}"), true);
    let labels = match task.labels.take() {
        Some(labels) => read_labels(labels, context, &keys.of("labels", true))?,
        None => Vec::new(),
    };
    let unit = |value: f32, key: String| match value {
        0.0..=1.0 => Ok(value),
        _ => Err(LoadError::setting(
            key,
            format_args!("{value}, expected a number from 0 to 1"),
        )),
    };
    let mut detector = Detector {
        form: Form::Separate {
            boxes: 0,
            scores: 0,
            labels: None,
            count: None,
        },
        box_format: BoxFormat::Xyxy,
        coordinates: written.coordinates,
        activation: task.activation.take().unwrap_or_default(),
        labels,
        first_label: written.first_label,
        background: written.background,
        score_threshold: unit(
            task.score_threshold.take().unwrap_or(SCORE_THRESHOLD),
            keys.of("score_threshold", true),
        )?,
        iou_threshold: None,
        across_classes: written.across_classes,
        max_detections: written.max_detections.get(),
    };
    detector.form = match &written.boxes {
        Some(boxes) => separate(boxes, written, outputs, &key)?,
        None => rows(&detector, written, outputs, keys)?,
    };
    let has_indexes = match detector.form {
        Form::Rows { format, .. } => format.has_index(),
        Form::Separate { labels, .. } => labels.is_some(),
    };
    let default = match detector.form {
        Form::Rows { .. } if !has_indexes => BoxFormat::Cxcywh,
        _ => BoxFormat::Xyxy,
    };
    detector.box_format = written.box_format.unwrap_or(default);
    detector.iou_threshold = match written.iou_threshold {
        Some(threshold) => Some(unit(threshold, key("iou_threshold"))?),
        None => (!has_indexes).then_some(IOU_THRESHOLD),
    };
    check_options(&detector, has_indexes, written, &key)?;
    Ok(detector)
}

/// Rejects options that do not apply to the form of the predictions.
fn check_options(
    detector: &Detector,
    has_indexes: bool,
    written: &DetectionSettings,
    key: &dyn Fn(&str) -> String,
) -> Result<(), LoadError> {
    if written.first_label != 0 && !has_indexes {
        let message = "is for models that compute the index of a class, expected 0 for scores of each class";
        return Err(LoadError::setting(key("first_label"), message));
    }
    if written.background.is_some() && has_indexes {
        let message = "is for models that compute scores of each class";
        return Err(LoadError::setting(key("background"), message));
    }
    if has_indexes && detector.activation == Activation::Softmax {
        let message = "softmax is for scores of several classes, but each box has one";
        return Err(LoadError::setting(key("labels"), message));
    }
    if detector.coordinates == Coordinates::Grid && detector.box_format != BoxFormat::Cxcywh {
        let message = "boxes relative to a grid are `cxcywh`";
        return Err(LoadError::setting(key("box_format"), message));
    }
    Ok(())
}

fn separate(
    boxes: &str,
    written: &DetectionSettings,
    outputs: Outputs<'_>,
    key: &dyn Fn(&str) -> String,
) -> Result<Form, LoadError> {
    if written.predictions.is_some() {
        let message =
            "predictions in one output have no separate boxes, expected one of `predictions` and `boxes`";
        return Err(LoadError::setting(key("boxes"), message));
    }
    for (other, name) in [
        (written.rows.is_some(), "rows"),
        (written.transposed.is_some(), "transposed"),
    ] {
        if other {
            return Err(LoadError::setting(
                key(name),
                "is for predictions in one output, but `boxes` are separate",
            ));
        }
    }
    let Some(scores) = &written.scores else {
        return Err(LoadError::setting(
            key("scores"),
            "missing, expected the output with the scores of the `boxes`",
        ));
    };
    let optional = |name: &Option<String>, setting: &str| {
        let find = |name: &String| outputs.find(name, &key(setting));
        name.as_ref().map(find).transpose()
    };
    let (boxes, scores) = (
        outputs.find(boxes, &key("boxes"))?,
        outputs.find(scores, &key("scores"))?,
    );
    outputs.check_fractions(boxes, &key("boxes"))?;
    outputs.check_fractions(scores, &key("scores"))?;
    Ok(Form::Separate {
        boxes,
        scores,
        labels: optional(&written.labels, "labels")?,
        count: optional(&written.count, "count")?,
    })
}

/// The index of the output that contains all predictions.
fn predictions(
    written: &DetectionSettings,
    outputs: Outputs<'_>,
    keys: &Keys<'_>,
) -> Result<usize, LoadError> {
    let key = |setting: &str| keys.of(&format!("detection.{setting}"), true);
    for (other, name) in [
        (&written.scores, "scores"),
        (&written.labels, "labels"),
        (&written.count, "count"),
    ] {
        if other.is_some() {
            let message = "requires `boxes`, the output with the boxes";
            return Err(LoadError::setting(key(name), message));
        }
    }
    let output = match &written.predictions {
        Some(name) => outputs.find(name, &key("predictions"))?,
        None if outputs.specs.len() == 1 => 0,
        None => {
            let message = format!(
                "the task has the outputs {}, expected `predictions`, or `boxes` and `scores`, with their names",
                outputs.names()
            );
            return Err(LoadError::setting(keys.of("detection", true), message));
        }
    };
    outputs.check_fractions(output, &keys.of("detection", true))?;
    Ok(output)
}

/// Determines the layout of the predictions in one output from the settings and the shape of the output.
fn rows(
    detector: &Detector,
    written: &DetectionSettings,
    outputs: Outputs<'_>,
    keys: &Keys<'_>,
) -> Result<Form, LoadError> {
    let output = predictions(written, outputs, keys)?;
    let blame = |message: String| Err(LoadError::setting(keys.of("detection", true), message));
    let name = &outputs.specs[output].name;
    let form = |(format, transposed)| Form::Rows {
        output,
        format,
        transposed,
    };
    let dims = outputs.fixed_dims(output, 2).unwrap_or(vec![None, None]);
    match (written.rows, written.transposed) {
        // An unknown width is checked at inference time.
        (Some(format), Some(transposed)) if dims[usize::from(!transposed)].is_none() => {
            return Ok(form((format, transposed)));
        }
        _ if dims == [None, None] => {
            return blame(format!(
                "the shape of output `{name}` is unknown, expected `rows` and `transposed` to describe it"
            ));
        }
        _ => {}
    }
    let formats = match written.rows {
        Some(format) => vec![format],
        None if detector.labels.is_empty() => {
            return blame(format!(
                "expected `labels`, or `rows`, to say what follows a box in output `{name}`"
            ));
        }
        None => vec![RowFormat::Scores, RowFormat::Objectness],
    };
    let mut found = Vec::new();
    for transposed in [false, true] {
        if written.transposed.is_some_and(|written| written != transposed) {
            continue;
        }
        let (count, width) = if transposed {
            (dims[1], dims[0])
        } else {
            (dims[0], dims[1])
        };
        let Some(width) = width else { continue };
        // Without labels, any number of classes is possible. Assume that there are at least as many predictions as numbers in
        // each.
        let is_narrow = written.transposed.is_some()
            || !detector.labels.is_empty()
            || count.is_none_or(|count| width <= count);
        for format in &formats {
            if is_narrow && detector.check_row(*format, width).is_ok() {
                found.push((*format, transposed));
            }
        }
    }
    match found[..] {
        [found] => Ok(form(found)),
        [] => {
            let key = if detector.labels.is_empty() {
                "detection"
            } else {
                "labels"
            };
            let message = no_rows(detector, written, name, &dims);
            Err(LoadError::setting(keys.of(key, true), message))
        }
        _ => blame(format!(
            "the shape of output `{name}` does not show what a prediction is, expected `rows` and `transposed` to say so"
        )),
    }
}

/// Explains why no layout of an output of this shape matches the labels.
fn no_rows(detector: &Detector, written: &DetectionSettings, name: &str, dims: &[Option<usize>]) -> String {
    // Assume that there are more predictions than numbers in each.
    let width = dims.iter().flatten().min();
    let width = width.map_or("an unknown number of".to_owned(), usize::to_string);
    let expected = match (detector.labels.len(), written.rows) {
        (_, Some(format)) if format.has_index() => "6: a box, a score and the index of a class".to_owned(),
        (0, _) => "a box and the scores of the classes".to_owned(),
        (labels, _) => {
            let scores = labels + usize::from(detector.background.is_some());
            format!(
                "{} (a box and {scores} scores, for {labels} labels) or {} (with the score of objectness)",
                4 + scores,
                5 + scores
            )
        }
    };
    format!("output `{name}` has {width} numbers for each prediction, expected {expected}")
}
