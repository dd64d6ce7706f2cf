//! Bounding boxes of detected objects: formats, mapping from the model's input back to the original image, and non-maximum
//! suppression. Does not deal with tensors, labels or runtimes.

use schemars::JsonSchema;
use serde::Deserialize;

/// Order and meaning of the four numbers of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum BoxFormat {
    /// Center, width and height.
    Cxcywh,
    /// Left, top, width and height.
    Xywh,
    /// Left, top, right and bottom.
    Xyxy,
    /// Top, left, bottom and right.
    Yxyx,
}

/// Coordinate system of a box.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Coordinates {
    /// Pixels of the model's input.
    #[default]
    Pixels,
    /// Fractions of the width and height of the model's input, from 0 to 1.
    Unit,
    /// Pixels of the original image. The model scales boxes itself, from an input that holds the size of the image.
    Original,
    /// Cells of the YOLOX grids, with strides of 8, 16 and 32 pixels. Widths and heights are logarithms.
    Grid,
}

/// A box given by its edges. The y axis points down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) left: f32,
    pub(crate) top: f32,
    pub(crate) right: f32,
    pub(crate) bottom: f32,
}

impl Bounds {
    pub(crate) fn new([a, b, c, d]: [f32; 4], format: BoxFormat) -> Self {
        let [left, top, right, bottom] = match format {
            BoxFormat::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
            BoxFormat::Xywh => [a, b, a + c, b + d],
            BoxFormat::Xyxy => [a, b, c, d],
            BoxFormat::Yxyx => [b, a, d, c],
        };
        Self {
            left,
            top,
            right,
            bottom,
        }
    }

    /// The area of the box; 0 if it is empty or inverted.
    pub(crate) fn area(&self) -> f32 {
        (self.right - self.left).max(0.0) * (self.bottom - self.top).max(0.0)
    }

    pub(crate) fn is_finite(&self) -> bool {
        [self.left, self.top, self.right, self.bottom]
            .iter()
            .all(|edge| edge.is_finite())
    }

    /// Intersection over union; 0 if both boxes are empty.
    pub(crate) fn iou(&self, other: &Self) -> f32 {
        let shared = Self {
            left: self.left.max(other.left),
            top: self.top.max(other.top),
            right: self.right.min(other.right),
            bottom: self.bottom.min(other.bottom),
        }
        .area();
        let union = self.area() + other.area() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }
}

/// Position and scale of an image within the model's input, for mapping boxes back to the original image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Frame {
    /// Size of the original image in pixels; boxes are clipped to it. `None` if the item is a tensor: its boxes stay in input
    /// coordinates.
    pub(crate) original: Option<[f32; 2]>,
    /// Width and height of the model's input, if the input is an image.
    pub(crate) input: Option<[f32; 2]>,
    /// Input pixels per pixel of the original image, horizontally and vertically.
    pub(crate) scale: [f32; 2],
    /// Left and top edges of the resized image within the input.
    pub(crate) offset: [f32; 2],
}

impl Frame {
    /// The frame of an item given as a tensor, which is not resized. `input` is its width and height if it is an image.
    pub(crate) fn of_tensor(input: Option<[f32; 2]>) -> Self {
        Self {
            original: None,
            input,
            scale: [1.0; 2],
            offset: [0.0; 2],
        }
    }

    /// Maps a box from input pixels to the original image and clips it to the image. Returns `None` if nothing of the box
    /// remains.
    pub(crate) fn restore(&self, bounds: &Bounds) -> Option<Bounds> {
        let [horizontal, vertical] = self.scale;
        let x = |edge: f32| (edge - self.offset[0]) / horizontal;
        let y = |edge: f32| (edge - self.offset[1]) / vertical;
        self.clip(Bounds {
            left: x(bounds.left),
            top: y(bounds.top),
            right: x(bounds.right),
            bottom: y(bounds.bottom),
        })
    }

    /// Clips a box to the original image. Returns `None` if nothing of the box remains.
    pub(crate) fn clip(&self, mut restored: Bounds) -> Option<Bounds> {
        if let Some([width, height]) = self.original {
            restored = Bounds {
                left: restored.left.clamp(0.0, width),
                top: restored.top.clamp(0.0, height),
                right: restored.right.clamp(0.0, width),
                bottom: restored.bottom.clamp(0.0, height),
            };
        }
        (restored.area() > 0.0).then_some(restored)
    }
}

/// A candidate detection.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) bounds: Bounds,
    /// Never NaN.
    pub(crate) score: f32,
    pub(crate) class: usize,
}

/// Sorts candidates by descending score. The sort is stable: candidates with equal scores keep their order.
pub(crate) fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by(|one, other| other.score.total_cmp(&one.score));
}

/// Greedy non-maximum suppression of sorted candidates. Drops each candidate whose intersection over union with a kept candidate
/// of the same class (of any class if `across_classes`) exceeds `threshold`. Stops after `max` candidates.
pub(crate) fn suppress(
    sorted: &[Candidate],
    threshold: f32,
    across_classes: bool,
    max: usize,
) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in sorted {
        if kept.len() == max {
            break;
        }
        let suppressed = kept.iter().any(|better| {
            (across_classes || better.class == candidate.class)
                && better.bounds.iou(&candidate.bounds) > threshold
        });
        if !suppressed {
            kept.push(*candidate);
        }
    }
    kept
}

/// Strides of the YOLOX grids in pixels, in the order of their cells in the output.
const STRIDES: [usize; 3] = [8, 16, 32];

/// The cells of the YOLOX grids for an input of the given size, each as column, row and stride.
pub(crate) fn grid_cells([width, height]: [usize; 2]) -> impl Iterator<Item = [usize; 3]> {
    STRIDES.into_iter().flat_map(move |stride| {
        let (columns, rows) = (width / stride, height / stride);
        (0..rows).flat_map(move |row| (0..columns).map(move |column| [column, row, stride]))
    })
}

/// The number of [`grid_cells`] for an input of the given size.
pub(crate) fn grid_cell_count([width, height]: [usize; 2]) -> usize {
    STRIDES
        .iter()
        .map(|stride| (width / stride) * (height / stride))
        .sum()
}

/// Decodes a YOLOX prediction for a cell into the center, width and height of a box in pixels. `x` and `y` are the offset of the
/// center from the cell, in cells; `width` and `height` are logarithms of the size in cells.
pub(crate) fn from_grid([x, y, width, height]: [f32; 4], [column, row, stride]: [usize; 3]) -> [f32; 4] {
    let stride = stride as f32;
    [
        (x + column as f32) * stride,
        (y + row as f32) * stride,
        width.exp() * stride,
        height.exp() * stride,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(left: f32, top: f32, right: f32, bottom: f32) -> Bounds {
        Bounds {
            left,
            top,
            right,
            bottom,
        }
    }

    fn candidate(edges: [f32; 4], score: f32, class: usize) -> Candidate {
        Candidate {
            bounds: Bounds::new(edges, BoxFormat::Xyxy),
            score,
            class,
        }
    }

    #[test]
    fn every_format_gives_the_same_edges() {
        let expected = bounds(10.0, 20.0, 40.0, 80.0);
        for (numbers, format) in [
            ([25.0, 50.0, 30.0, 60.0], BoxFormat::Cxcywh),
            ([10.0, 20.0, 30.0, 60.0], BoxFormat::Xywh),
            ([10.0, 20.0, 40.0, 80.0], BoxFormat::Xyxy),
            ([20.0, 10.0, 80.0, 40.0], BoxFormat::Yxyx),
        ] {
            assert_eq!(Bounds::new(numbers, format), expected, "{format:?}");
        }
    }

    #[test]
    fn overlap_is_intersection_over_union() {
        let one = bounds(0.0, 0.0, 10.0, 10.0);
        assert_eq!(one.iou(&one), 1.0);
        assert_eq!(one.iou(&bounds(5.0, 0.0, 15.0, 10.0)), 50.0 / 150.0);
        assert_eq!(one.iou(&bounds(10.0, 0.0, 20.0, 10.0)), 0.0);
        assert_eq!(one.iou(&bounds(2.0, 2.0, 4.0, 4.0)), 0.04);
        let empty = bounds(3.0, 3.0, 3.0, 3.0);
        assert_eq!(empty.iou(&empty), 0.0);
    }

    #[test]
    fn the_lower_of_two_overlapping_boxes_of_a_class_is_dropped() {
        let mut all = [
            candidate([0.0, 0.0, 10.0, 10.0], 0.6, 0),
            candidate([1.0, 0.0, 11.0, 10.0], 0.9, 0),
            candidate([1.0, 0.0, 11.0, 10.0], 0.8, 1),
            candidate([50.0, 0.0, 60.0, 10.0], 0.7, 0),
        ];
        sort(&mut all);
        let classes_and_scores = |across| {
            suppress(&all, 0.5, across, 10)
                .iter()
                .map(|kept| (kept.class, kept.score))
                .collect::<Vec<_>>()
        };
        assert_eq!(classes_and_scores(false), [(0, 0.9), (1, 0.8), (0, 0.7)]);
        assert_eq!(classes_and_scores(true), [(0, 0.9), (0, 0.7)]);
    }

    #[test]
    fn a_dropped_box_drops_no_other() {
        // The middle box overlaps both neighbors, which do not overlap each other.
        let mut all = [
            candidate([0.0, 0.0, 10.0, 10.0], 0.9, 0),
            candidate([4.0, 0.0, 14.0, 10.0], 0.8, 0),
            candidate([8.0, 0.0, 18.0, 10.0], 0.7, 0),
        ];
        sort(&mut all);
        let kept: Vec<_> = suppress(&all, 0.4, false, 10)
            .iter()
            .map(|kept| kept.score)
            .collect();
        assert_eq!(kept, [0.9, 0.7]);
    }

    #[test]
    fn of_equal_scores_the_first_box_wins() {
        let mut all = [
            candidate([0.0, 0.0, 10.0, 10.0], 0.5, 0),
            candidate([1.0, 0.0, 11.0, 10.0], 0.5, 0),
        ];
        sort(&mut all);
        let kept = suppress(&all, 0.5, false, 10);
        assert_eq!(kept, [candidate([0.0, 0.0, 10.0, 10.0], 0.5, 0)]);
    }

    #[test]
    fn an_overlap_of_exactly_the_threshold_is_kept() {
        // The intersection is 50, the union 100.
        let all = [
            candidate([0.0, 0.0, 10.0, 10.0], 0.9, 0),
            candidate([0.0, 0.0, 10.0, 5.0], 0.8, 0),
        ];
        assert_eq!(suppress(&all, 0.5, false, 10).len(), 2);
        assert_eq!(suppress(&all, 0.49, false, 10).len(), 1);
    }

    #[test]
    fn no_more_boxes_than_the_maximum_are_kept_and_none_of_none() {
        let all: Vec<_> = (0..5)
            .map(|index| {
                let left = index as f32 * 20.0;
                candidate([left, 0.0, left + 10.0, 10.0], 0.5, 0)
            })
            .collect();
        assert_eq!(suppress(&all, 0.5, false, 3), all[..3]);
        assert_eq!(suppress(&[], 0.5, false, 3), []);
    }

    #[test]
    fn boxes_are_mapped_back_through_scale_and_padding_and_clipped() {
        // A 200×100 image, halved and centered in a 100×100 square: 25 rows of padding above it.
        let frame = Frame {
            original: Some([200.0, 100.0]),
            input: Some([100.0, 100.0]),
            scale: [0.5, 0.5],
            offset: [0.0, 25.0],
        };
        let restored = frame.restore(&bounds(10.0, 30.0, 60.0, 95.0));
        assert_eq!(restored, Some(bounds(20.0, 10.0, 120.0, 100.0)));
        // Entirely within the padding.
        assert_eq!(frame.restore(&bounds(10.0, 0.0, 60.0, 20.0)), None);
        // Stretched by different factors.
        let stretched = Frame {
            scale: [0.5, 2.0],
            offset: [0.0; 2],
            ..frame
        };
        let restored = stretched.restore(&bounds(10.0, 30.0, 60.0, 90.0));
        assert_eq!(restored, Some(bounds(20.0, 15.0, 120.0, 45.0)));
    }

    #[test]
    fn grids_are_listed_from_the_finest_row_by_row() {
        let cells: Vec<_> = grid_cells([64, 32]).collect();
        assert_eq!(cells.len(), 8 * 4 + 4 * 2 + 2);
        assert_eq!(cells.len(), grid_cell_count([64, 32]));
        assert_eq!(
            [cells[0], cells[1], cells[8], cells[32], cells[41]],
            [[0, 0, 8], [1, 0, 8], [0, 1, 8], [0, 0, 16], [1, 0, 32]]
        );
        assert_eq!(
            from_grid([0.5, 0.25, 0.0, 0.0], [2, 1, 16]),
            [40.0, 20.0, 16.0, 16.0]
        );
    }
}
