//! Places an image of any size in the input of a model: stretched, or scaled in proportion and padded. Pure geometry: does not
//! deal with pixels or tensors.

use crate::answers::boxes::Frame;
use crate::settings::{Fit, ImageSettings, Position, Width};

/// The area of a model's input in which images are placed.
#[derive(Debug)]
pub(crate) struct Canvas {
    /// `None` if the width depends on the image.
    width: Option<usize>,
    height: usize,
    fit: Fit,
    position: Position,
    /// This and the following fields apply only if the width depends on the image.
    min_width: usize,
    max_width: usize,
    width_step: usize,
}

/// Sizes and offset in pixels, horizontally and vertically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    /// Size of the model's input.
    pub(crate) canvas: [usize; 2],
    /// Size of the resized image.
    pub(crate) resized: [usize; 2],
    /// Offset of the resized image within the input.
    pub(crate) offset: [usize; 2],
}

impl Placement {
    /// Returns the frame that maps boxes back to an image of size `original`.
    pub(crate) fn frame(&self, original: [usize; 2]) -> Frame {
        let original = original.map(|size| size as f32);
        Frame {
            original: Some(original),
            input: Some(self.canvas.map(|size| size as f32)),
            scale: [0, 1].map(|axis| self.resized[axis] as f32 / original[axis]),
            offset: self.offset.map(|size| size as f32),
        }
    }
}

impl Canvas {
    /// # Errors
    /// Returns the key within `image` and what is wrong with its value.
    pub(crate) fn new(settings: &ImageSettings) -> Result<Self, (&'static str, String)> {
        let width = match settings.width {
            Width::Fixed(width) => Some(width.get()),
            Width::Proportional(_) => None,
        };
        let limits = [
            ("min_width", settings.min_width.is_some()),
            ("max_width", settings.max_width.is_some()),
            ("width_step", settings.width_step.is_some()),
        ];
        if let (Some(_), Some((key, _))) = (width, limits.iter().find(|(_, written)| *written)) {
            return Err((key, "requires `width = \"proportional\"`".to_owned()));
        }
        let fit = match (width, settings.fit) {
            (None, None | Some(Fit::Height)) => Fit::Height,
            (None, Some(_)) => {
                return Err(("fit", "with a proportional width, expected \"height\"".to_owned()));
            }
            (Some(_), fit) => fit.unwrap_or_default(),
        };
        if settings.position.is_some() && fit != Fit::Letterbox {
            return Err(("position", "requires `fit = \"letterbox\"`".to_owned()));
        }
        if settings.fill.is_some() && fit == Fit::Stretch {
            let message = "stretched images have no padding, expected `fit = \"letterbox\"` or \"height\"";
            return Err(("fill", message.to_owned()));
        }
        let canvas = Self {
            width,
            height: settings.height.get(),
            fit,
            position: settings.position.unwrap_or_default(),
            min_width: settings.min_width.map_or(1, usize::from),
            max_width: settings.max_width.map_or(MAX_WIDTH, usize::from),
            width_step: settings.width_step.map_or(1, usize::from),
        };
        if canvas.min_width > canvas.max_width {
            let message = format!(
                "{}, expected at most {}, the maximum width",
                canvas.min_width, canvas.max_width
            );
            return Err(("min_width", message));
        }
        Ok(canvas)
    }

    /// Width (`None` if it depends on the image) and height.
    pub(crate) fn size(&self) -> [Option<usize>; 2] {
        [self.width, Some(self.height)]
    }

    /// Places an image of the given size.
    ///
    /// # Errors
    /// The resized image would exceed the maximum width.
    pub(crate) fn place(&self, [width, height]: [usize; 2]) -> Result<Placement, String> {
        // Multiply first, so that whole-number results are exact.
        let scaled = |size: usize, to: usize, from: usize| size as f64 * to as f64 / from as f64;
        let by_height = (scaled(width, self.height, height).ceil() as usize).max(1);
        let Some(canvas_width) = self.width else {
            if by_height > self.max_width {
                return Err(format!(
                    "image of {width}×{height} pixels becomes {by_height} wide at a height of {}, expected at most {}",
                    self.height, self.max_width
                ));
            }
            let canvas = by_height.max(self.min_width).next_multiple_of(self.width_step);
            return Ok(Placement {
                canvas: [canvas, self.height],
                resized: [by_height, self.height],
                offset: [0, 0],
            });
        };
        let canvas = [canvas_width, self.height];
        let resized = match self.fit {
            Fit::Stretch => canvas,
            Fit::Height => [by_height.min(canvas_width), self.height],
            Fit::Letterbox => {
                let by_width = (scaled(height, canvas_width, width).round() as usize).max(1);
                if by_width <= self.height {
                    [canvas_width, by_width]
                } else {
                    let by_height = (scaled(width, self.height, height).round() as usize).max(1);
                    [by_height, self.height]
                }
            }
        };
        let offset = match (self.fit, self.position) {
            (Fit::Letterbox, Position::Center) => [0, 1].map(|axis| (canvas[axis] - resized[axis]) / 2),
            _ => [0, 0],
        };
        Ok(Placement {
            canvas,
            resized,
            offset,
        })
    }
}

/// Default maximum width if the width depends on the image.
const MAX_WIDTH: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn canvas(width: Option<usize>, height: usize, fit: Fit, position: Position) -> Canvas {
        Canvas {
            width,
            height,
            fit,
            position,
            min_width: 20,
            max_width: 200,
            width_step: 8,
        }
    }

    fn placed(canvas: &Canvas, image: [usize; 2]) -> [[usize; 2]; 3] {
        let placement = canvas.place(image).expect("the image is not too wide");
        [placement.canvas, placement.resized, placement.offset]
    }

    #[test]
    fn a_letterbox_keeps_proportions_and_puts_padding_on_both_sides_or_at_the_end() {
        let center = canvas(Some(100), 100, Fit::Letterbox, Position::Center);
        let top_left = canvas(Some(100), 100, Fit::Letterbox, Position::TopLeft);
        for (image, resized, offset) in [
            ([200, 100], [100, 50], [0, 25]),
            ([100, 400], [25, 100], [37, 0]),
            ([10, 10], [100, 100], [0, 0]),
            ([4000, 2], [100, 1], [0, 49]),
        ] {
            assert_eq!(placed(&center, image), [[100, 100], resized, offset], "{image:?}");
            assert_eq!(
                placed(&top_left, image),
                [[100, 100], resized, [0, 0]],
                "{image:?}"
            );
        }
    }

    #[test]
    fn an_image_is_stretched_or_fitted_to_the_height() {
        let stretched = canvas(Some(100), 50, Fit::Stretch, Position::Center);
        assert_eq!(placed(&stretched, [7, 900]), [[100, 50], [100, 50], [0, 0]]);
        let by_height = canvas(Some(100), 50, Fit::Height, Position::Center);
        assert_eq!(placed(&by_height, [75, 100]), [[100, 50], [38, 50], [0, 0]]);
        assert_eq!(placed(&by_height, [900, 100]), [[100, 50], [100, 50], [0, 0]]);
    }

    #[test]
    fn a_width_in_proportion_is_padded_to_the_minimum_and_to_whole_steps() {
        let canvas = canvas(None, 48, Fit::Height, Position::Center);
        assert_eq!(placed(&canvas, [100, 48]), [[104, 48], [100, 48], [0, 0]]);
        assert_eq!(placed(&canvas, [96, 96]), [[48, 48], [48, 48], [0, 0]]);
        assert_eq!(placed(&canvas, [1, 48]), [[24, 48], [1, 48], [0, 0]]);
        assert_eq!(
            canvas.place([400, 48]),
            Err("image of 400×48 pixels becomes 400 wide at a height of 48, expected at most 200".to_owned())
        );
    }

    #[test]
    fn corners_of_the_resized_image_are_corners_of_the_original() {
        let canvas = canvas(Some(100), 100, Fit::Letterbox, Position::Center);
        let frame = canvas.place([300, 200]).expect("it fits").frame([300, 200]);
        assert_eq!(frame.original, Some([300.0, 200.0]));
        assert_eq!(frame.offset, [0.0, 16.0]);
        let bounds = crate::answers::boxes::Bounds {
            left: 0.0,
            top: 16.0,
            right: 100.0,
            bottom: 83.0,
        };
        let restored = frame.restore(&bounds).expect("it is not empty");
        assert_eq!(
            [restored.left, restored.top, restored.right, restored.bottom],
            [0.0, 0.0, 300.0, 200.0]
        );
    }
}
