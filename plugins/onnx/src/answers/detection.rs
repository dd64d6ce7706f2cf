//! Extracts detections from the outputs of a detector for one item: reads boxes and scores, filters them, suppresses overlapping
//! boxes and maps the rest back to the original image. Does not deal with batches, files or runtimes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::boxes::{self, Bounds, BoxFormat, Candidate, Coordinates, Frame};
use super::{Rows, check_probability};
use crate::settings::Activation;

/// The objects in one image, highest score first.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Detections {
    /// The detected objects. May be empty.
    pub(crate) detections: Vec<Detection>,
}

/// A detected object.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Detection {
    /// Class of the object.
    pub(crate) label: String,
    /// Confidence of the model.
    pub(crate) score: f32,
    /// Left, top, right and bottom edges, in pixels of the original image, or of the tensor if the item is a tensor.
    #[serde(rename = "box")]
    pub(crate) edges: [f32; 4],
}

/// What a row of predictions contains besides the four numbers of a box. The box comes first unless stated otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RowFormat {
    /// A score for each class.
    Scores,
    /// The objectness score (whether there is any object), then the conditional score of each class.
    Objectness,
    /// One score, then the class index.
    Label,
    /// The class index, then one score, then the box.
    LabelFirst,
}

impl RowFormat {
    /// Whether a row contains a class index instead of a score for each class.
    pub(crate) fn has_index(self) -> bool {
        matches!(self, Self::Label | Self::LabelFirst)
    }
}

/// Layout of the predictions in the outputs of a task, which are given by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// One output with a row for each prediction, or with a column for each if `transposed`.
    Rows {
        output: usize,
        format: RowFormat,
        transposed: bool,
    },
    /// One output with boxes and one with scores: a score for each class, or a single score if another output holds the class
    /// index (`labels`).
    Separate {
        boxes: usize,
        scores: usize,
        labels: Option<usize>,
        /// The output with the number of valid predictions.
        count: Option<usize>,
    },
}

/// Extracts detections from the outputs of a model.
#[derive(Debug)]
pub(crate) struct Detector {
    pub(crate) form: Form,
    pub(crate) box_format: BoxFormat,
    pub(crate) coordinates: Coordinates,
    pub(crate) activation: Activation,
    /// Class names, without the background. If there are none, answers contain class numbers.
    pub(crate) labels: Vec<String>,
    /// Index of the first class, for models that compute class indexes.
    pub(crate) first_label: usize,
    /// Index of the score that stands for "no object".
    pub(crate) background: Option<usize>,
    pub(crate) score_threshold: f32,
    /// `None` if the model suppresses overlapping boxes itself.
    pub(crate) iou_threshold: Option<f32>,
    pub(crate) across_classes: bool,
    pub(crate) max_detections: usize,
}

impl Detector {
    /// Detects the objects of one item. `outputs` are the outputs of the task for this item, without a batch dimension.
    ///
    /// # Errors
    /// The outputs do not contain predictions of the configured form.
    pub(crate) fn detect(&self, outputs: &[Rows<'_>], frame: &Frame) -> Result<Detections, String> {
        let mut candidates = match self.form {
            Form::Rows {
                output,
                format,
                transposed,
            } => self.read_rows(&outputs[output], format, transposed, frame)?,
            Form::Separate {
                boxes,
                scores,
                labels,
                count,
            } => {
                let labels = labels.map(|index| &outputs[index]);
                let count = count.map(|index| &outputs[index]);
                self.read_separate(&outputs[boxes], &outputs[scores], labels, count, frame)?
            }
        };
        boxes::sort(&mut candidates);
        if let Some(threshold) = self.iou_threshold {
            candidates = boxes::suppress(&candidates, threshold, self.across_classes, self.max_detections);
        }
        let restored = candidates.iter().filter_map(|candidate| {
            let bounds = match self.coordinates {
                Coordinates::Original => frame.clip(candidate.bounds)?,
                _ => frame.restore(&candidate.bounds)?,
            };
            Some(Detection {
                label: self.label(candidate.class),
                score: candidate.score,
                edges: [bounds.left, bounds.top, bounds.right, bounds.bottom],
            })
        });
        Ok(Detections {
            detections: restored.take(self.max_detections).collect(),
        })
    }

    fn label(&self, class: usize) -> String {
        let name = self.labels.get(class).cloned();
        name.unwrap_or_else(|| (class + self.first_label).to_string())
    }

    fn read_rows(
        &self,
        output: &Rows<'_>,
        format: RowFormat,
        transposed: bool,
        frame: &Frame,
    ) -> Result<Vec<Candidate>, String> {
        let [rows, columns] = output.matrix()?;
        let (count, width) = if transposed {
            (columns, rows)
        } else {
            (rows, columns)
        };
        self.check_row(format, width)?;
        let cells = self.cells(count, frame)?;
        let mut row = vec![0.0; width];
        let mut candidates = Vec::new();
        for index in 0..count {
            if transposed {
                let column = output.values[index..].iter().step_by(columns);
                row.iter_mut().zip(column).for_each(|(to, from)| *to = *from);
            } else {
                row.copy_from_slice(&output.values[index * width..][..width]);
            }
            if format == RowFormat::LabelFirst {
                // Reorder to box, score, label.
                row.reverse();
                row[..4].reverse();
            }
            let (edges, rest) = row.split_first_chunk_mut::<4>().ok_or("a row is too short")?;
            let found = match (format, rest) {
                (RowFormat::Scores, scores) => self.best(scores)?,
                (RowFormat::Objectness, [objectness, scores @ ..]) => {
                    self.activation.apply(std::slice::from_mut(objectness));
                    let objectness = number(*objectness)?;
                    self.best(scores)?
                        .map(|(class, score)| (class, score * objectness))
                }
                (RowFormat::Label | RowFormat::LabelFirst, [score, label]) => {
                    self.activation.apply(std::slice::from_mut(score));
                    self.class(*label)?.map(|class| (class, *score))
                }
                _ => return Err(format!("the model computed rows of {width} numbers")),
            };
            self.add(&mut candidates, *edges, found, cells.get(index), frame)?;
        }
        Ok(candidates)
    }

    fn read_separate(
        &self,
        boxes: &Rows<'_>,
        scores: &Rows<'_>,
        labels: Option<&Rows<'_>>,
        count: Option<&Rows<'_>>,
        frame: &Frame,
    ) -> Result<Vec<Candidate>, String> {
        let Some(total) = boxes.count_of(4) else {
            return Err(format!(
                "the model computed boxes of the shape {:?}, expected 4 numbers for each",
                boxes.shape
            ));
        };
        if total == 0 {
            return Ok(Vec::new());
        }
        let valid = match count.map(|count| count.values) {
            None => total,
            Some([count]) if *count >= 0.0 && *count <= total as f32 => *count as usize,
            Some(other) => {
                return Err(format!(
                    "the model computed {other:?} as the number of detections, expected 0 to {total}"
                ));
            }
        };
        let cells = self.cells(total, frame)?;
        let per_box = if labels.is_some() {
            1
        } else {
            scores.values.len() / total
        };
        let fits = scores.count_of(per_box) == Some(total)
            && labels.is_none_or(|labels| labels.values.len() == total);
        if !fits {
            let labels = labels.map_or(String::new(), |labels| {
                format!(" and labels of the shape {:?}", labels.shape)
            });
            return Err(format!(
                "the model computed {total} boxes with scores of the shape {:?}{labels}",
                scores.shape
            ));
        }
        let mut candidates = Vec::new();
        for index in 0..valid {
            let mut row = scores.values[index * per_box..][..per_box].to_vec();
            let found = match labels {
                Some(labels) => {
                    self.activation.apply(&mut row);
                    self.class(labels.values[index])?.map(|class| (class, row[0]))
                }
                None => {
                    self.check_row(RowFormat::Scores, per_box + 4)?;
                    self.best(&mut row)?
                }
            };
            let edges = [0, 1, 2, 3].map(|edge| boxes.values[index * 4 + edge]);
            self.add(&mut candidates, edges, found, cells.get(index), frame)?;
        }
        Ok(candidates)
    }

    /// Checks the length of a row against the number of labels.
    pub(crate) fn check_row(&self, format: RowFormat, width: usize) -> Result<(), String> {
        let scores = self.labels.len() + usize::from(self.background.is_some());
        let expected = match format {
            RowFormat::Label | RowFormat::LabelFirst => 6,
            RowFormat::Scores => 4 + scores,
            RowFormat::Objectness => 5 + scores,
        };
        let known = format.has_index() || !self.labels.is_empty();
        let least = if format == RowFormat::Objectness { 6 } else { 5 };
        if (known && width != expected) || width < least {
            return Err(format!(
                "the model computed {width} numbers for each prediction, expected {expected}"
            ));
        }
        Ok(())
    }

    /// The grid cell of each prediction; empty if coordinates are not relative to a grid.
    fn cells(&self, count: usize, frame: &Frame) -> Result<Vec<[usize; 3]>, String> {
        if self.coordinates != Coordinates::Grid {
            return Ok(Vec::new());
        }
        let size = frame
            .input
            .ok_or("the size of the grid is unknown")?
            .map(|size| size as usize);
        let expected = boxes::grid_cell_count(size);
        if count != expected {
            return Err(format!(
                "the model computed {count} predictions, expected {expected}: one for each cell of the grids"
            ));
        }
        Ok(boxes::grid_cells(size).collect())
    }

    /// The highest-scoring class of a row and its score. Class indexes do not count the background; `None` if the background
    /// scores highest.
    fn best(&self, scores: &mut [f32]) -> Result<Option<(usize, f32)>, String> {
        self.activation.apply(scores);
        let mut best = (0, number(scores[0])?);
        for (class, score) in scores.iter().enumerate().skip(1) {
            if number(*score)? > best.1 {
                best = (class, *score);
            }
        }
        let class = match self.background {
            Some(background) if background == best.0 => return Ok(None),
            Some(background) if background < best.0 => best.0 - 1,
            _ => best.0,
        };
        Ok(Some((class, best.1)))
    }

    /// The class for a label that the model computed; `None` if the label is negative or less than `first_label`, which marks an
    /// unused slot.
    fn class(&self, label: f32) -> Result<Option<usize>, String> {
        if label.is_nan() || label.fract() != 0.0 {
            return Err(format!(
                "the model computed the label {label}, expected a whole number"
            ));
        }
        if label < 0.0 {
            return Ok(None);
        }
        let class = (label as usize).checked_sub(self.first_label);
        match class {
            Some(class) if self.labels.is_empty() || class < self.labels.len() => Ok(Some(class)),
            // Many models report the background class in unused slots.
            None => Ok(None),
            Some(_) => Err(format!(
                "the model computed the label {label}, expected {} to {}",
                self.first_label,
                self.first_label + self.labels.len() - 1
            )),
        }
    }

    fn add(
        &self,
        candidates: &mut Vec<Candidate>,
        edges: [f32; 4],
        found: Option<(usize, f32)>,
        cell: Option<&[usize; 3]>,
        frame: &Frame,
    ) -> Result<(), String> {
        let Some((class, score)) = found else {
            return Ok(());
        };
        if number(score)? < self.score_threshold {
            return Ok(());
        }
        check_probability(score)?;
        let edges = cell.map_or(edges, |cell| boxes::from_grid(edges, *cell));
        let mut bounds = Bounds::new(edges, self.box_format);
        if let (Coordinates::Unit, Some([width, height])) = (self.coordinates, frame.input) {
            bounds.left *= width;
            bounds.right *= width;
            bounds.top *= height;
            bounds.bottom *= height;
        }
        if !bounds.is_finite() {
            return Err(format!("the model computed the box {edges:?}"));
        }
        candidates.push(Candidate { bounds, score, class });
        Ok(())
    }
}

fn number(score: f32) -> Result<f32, String> {
    if score.is_nan() {
        return Err("the model computed NaN as a score".to_owned());
    }
    Ok(score)
}

#[cfg(test)]
mod tests;
