//! Tests of detection with each form of output.

use super::{Detection, Detector, Form, RowFormat};
use crate::answers::Rows;
use crate::answers::boxes::{BoxFormat, Coordinates, Frame};
use crate::settings::Activation;

fn detector(form: Form) -> Detector {
    Detector {
        form,
        box_format: BoxFormat::Cxcywh,
        coordinates: Coordinates::Pixels,
        activation: Activation::None,
        labels: vec!["cat".to_owned(), "dog".to_owned()],
        first_label: 0,
        background: None,
        score_threshold: 0.25,
        iou_threshold: Some(0.45),
        across_classes: false,
        max_detections: 10,
    }
}

fn rows(format: RowFormat, transposed: bool) -> Form {
    Form::Rows {
        output: 0,
        format,
        transposed,
    }
}

const SEPARATE: Form = Form::Separate {
    boxes: 0,
    scores: 1,
    labels: None,
    count: None,
};

const LABELED: Form = Form::Separate {
    boxes: 0,
    scores: 1,
    labels: Some(2),
    count: None,
};

const COUNTED: Form = Form::Separate {
    boxes: 0,
    scores: 1,
    labels: Some(2),
    count: Some(3),
};

fn detect(
    detector: &Detector,
    outputs: &[(&[usize], &[f32])],
) -> Result<Vec<(String, f32, [f32; 4])>, String> {
    let outputs: Vec<_> = outputs
        .iter()
        .map(|(shape, values)| Rows { shape, values })
        .collect();
    let found = detector.detect(&outputs, &Frame::of_tensor(Some([100.0, 100.0])))?;
    let plain = |detection: Detection| (detection.label, detection.score, detection.edges);
    Ok(found.detections.into_iter().map(plain).collect())
}

fn found(label: &str, score: f32, edges: [f32; 4]) -> (String, f32, [f32; 4]) {
    (label.to_owned(), score, edges)
}

#[test]
fn rows_of_scores_are_read_in_both_directions() {
    // A dog, the same dog with a lower score, a cat in the same place, and a prediction below the threshold.
    let dogs = [
        [50.0, 50.0, 20.0, 40.0, 0.1, 0.9],
        [51.0, 50.0, 20.0, 40.0, 0.1, 0.8],
        [50.0, 50.0, 20.0, 40.0, 0.5, 0.4],
        [10.0, 10.0, 10.0, 10.0, 0.2, 0.1],
    ];
    let expected = vec![
        found("dog", 0.9, [40.0, 30.0, 60.0, 70.0]),
        found("cat", 0.5, [40.0, 30.0, 60.0, 70.0]),
    ];
    let by_row = detector(rows(RowFormat::Scores, false));
    assert_eq!(
        detect(&by_row, &[(&[4, 6], &dogs.concat())]),
        Ok(expected.clone())
    );
    assert_eq!(
        detect(&by_row, &[(&[1, 4, 6], &dogs.concat())]),
        Ok(expected.clone())
    );
    let columns: Vec<f32> = (0..6).flat_map(|number| dogs.map(|row| row[number])).collect();
    let by_column = detector(rows(RowFormat::Scores, true));
    assert_eq!(detect(&by_column, &[(&[6, 4], &columns)]), Ok(expected));
}

#[test]
fn objectness_is_a_factor_and_the_threshold_is_inclusive() {
    let detector = detector(rows(RowFormat::Objectness, false));
    let rows = [
        [50.0, 50.0, 20.0, 20.0, 0.5, 0.5, 0.25],
        [20.0, 20.0, 20.0, 20.0, 0.5, 0.25, 0.25],
    ];
    assert_eq!(
        detect(&detector, &[(&[2, 7], &rows.concat())]),
        Ok(vec![found("cat", 0.25, [40.0, 40.0, 60.0, 60.0])])
    );
}

#[test]
fn rows_with_a_label_need_no_suppression_and_unused_ones_are_skipped() {
    let detector = Detector {
        box_format: BoxFormat::Xyxy,
        iou_threshold: None,
        ..detector(rows(RowFormat::Label, false))
    };
    let rows = [
        [10.0, 10.0, 20.0, 20.0, 0.6, 1.0],
        [10.0, 10.0, 20.0, 20.0, 0.7, 1.0],
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0],
        [5.0, 5.0, 9.0, 9.0, 0.9, -1.0],
    ];
    let edges = [10.0, 10.0, 20.0, 20.0];
    assert_eq!(
        detect(&detector, &[(&[4, 6], &rows.concat())]),
        Ok(vec![found("dog", 0.7, edges), found("dog", 0.6, edges)])
    );
}

#[test]
fn rows_may_begin_with_the_label() {
    let detector = Detector {
        box_format: BoxFormat::Xyxy,
        iou_threshold: None,
        ..detector(rows(RowFormat::LabelFirst, false))
    };
    let rows = [
        [1.0, 0.5, 10.0, 11.0, 20.0, 21.0],
        [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ];
    assert_eq!(
        detect(&detector, &[(&[2, 6], &rows.concat())]),
        Ok(vec![found("dog", 0.5, [10.0, 11.0, 20.0, 21.0])])
    );
}

#[test]
fn separate_outputs_hold_scores_of_classes_or_of_one_label() {
    let boxes = [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 0.9, 0.9];
    let unit = |form| Detector {
        box_format: BoxFormat::Xyxy,
        coordinates: Coordinates::Unit,
        ..detector(form)
    };
    let expected = Ok(vec![
        found("dog", 0.75, [50.0, 50.0, 90.0, 90.0]),
        found("cat", 0.5, [10.0, 10.0, 20.0, 20.0]),
    ]);
    let boxes: (&[usize], &[f32]) = (&[2, 4], &boxes);
    assert_eq!(
        detect(&unit(SEPARATE), &[boxes, (&[2, 2], &[0.5, 0.0, 0.5, 0.75])]),
        expected
    );
    let labeled = [boxes, (&[2], &[0.5, 0.75]), (&[2], &[0.0, 1.0])];
    assert_eq!(detect(&unit(LABELED), &labeled), expected);
    // Only the first of two slots is valid.
    let counted = [labeled[0], labeled[1], labeled[2], (&[1][..], &[1.0][..])];
    assert_eq!(
        detect(&unit(COUNTED), &counted),
        Ok(vec![found("cat", 0.5, [10.0, 10.0, 20.0, 20.0])])
    );
}

#[test]
fn no_boxes_are_no_detections() {
    for (form, outputs) in [
        (rows(RowFormat::Scores, false), vec![(&[0, 6][..], &[][..])]),
        (rows(RowFormat::Scores, true), vec![(&[6, 0][..], &[][..])]),
        (SEPARATE, vec![(&[0, 4][..], &[][..]), (&[0, 2][..], &[][..])]),
        (
            LABELED,
            vec![(&[0, 4][..], &[][..]), (&[0][..], &[][..]), (&[0][..], &[][..])],
        ),
    ] {
        assert_eq!(detect(&detector(form), &outputs), Ok(Vec::new()), "{form:?}");
    }
}

#[test]
fn a_background_class_is_not_an_object_and_has_no_label() {
    let softmax = Detector {
        background: Some(0),
        activation: Activation::Softmax,
        box_format: BoxFormat::Xyxy,
        ..detector(SEPARATE)
    };
    let boxes = [10.0, 10.0, 20.0, 20.0, 50.0, 50.0, 90.0, 90.0];
    let scores = [9.0, 0.0, 0.0, 0.0, 0.0, 9.0];
    let outputs: [(&[usize], &[f32]); 2] = [(&[2, 4], &boxes), (&[2, 3], &scores)];
    let detections = detect(&softmax, &outputs).expect("the outputs are right");
    assert_eq!(detections.len(), 1);
    let (label, score, edges) = &detections[0];
    assert_eq!((&**label, *edges), ("dog", [50.0, 50.0, 90.0, 90.0]));
    assert!((score - 0.999_753_2).abs() < 1e-6, "{score}");
}

#[test]
fn boxes_relative_to_grids_are_decoded() {
    let grid = Detector {
        coordinates: Coordinates::Grid,
        labels: vec!["dot".to_owned()],
        ..detector(rows(RowFormat::Objectness, false))
    };
    // A 32×32 input has 16 + 4 + 1 cells. The second cell with stride 16 is at column 1, row 0.
    let mut values = vec![0.0; 21 * 6];
    values[17 * 6..18 * 6].copy_from_slice(&[0.5, 0.25, 0.0, -(2.0_f32.ln()), 1.0, 0.8]);
    let outputs = [Rows {
        shape: &[21, 6],
        values: &values,
    }];
    let detections = grid.detect(&outputs, &Frame::of_tensor(Some([32.0, 32.0])));
    let detections = detections
        .expect("there is a prediction for each cell")
        .detections;
    assert_eq!(detections.len(), 1);
    assert_eq!(detections[0].edges, [16.0, 0.0, 32.0, 8.0]);
    let error = grid.detect(&outputs, &Frame::of_tensor(Some([64.0, 32.0])));
    assert_eq!(
        error,
        Err("the model computed 21 predictions, expected 42: one for each cell of the grids".to_owned())
    );
}

#[test]
fn numbers_that_are_no_detections_are_errors() {
    let by_row = detector(rows(RowFormat::Scores, false));
    let labeled = detector(LABELED);
    for (detector, outputs, expected) in [
        (
            &by_row,
            vec![(&[1, 6][..], &[0.0, 0.0, 1.0, 1.0, 0.1, f32::NAN][..])],
            "the model computed NaN as a score",
        ),
        (
            &by_row,
            vec![(&[1, 6][..], &[0.0, 0.0, f32::NAN, 1.0, 0.1, 0.9][..])],
            "the model computed the box [0.0, 0.0, NaN, 1.0]",
        ),
        (
            &by_row,
            vec![(&[1, 6][..], &[0.0, 0.0, 1.0, 1.0, 0.1, 3.5][..])],
            "the model computed the score 3.5, expected a number from 0 to 1; the operator can set `activation` to \"softmax\" or \
             \"sigmoid\" for a model that computes logits",
        ),
        (
            &by_row,
            vec![(&[1, 7][..], &[0.0; 7][..])],
            "the model computed 7 numbers for each prediction, expected 6",
        ),
        (
            &labeled,
            vec![
                (&[1, 4][..], &[0.0; 4][..]),
                (&[1][..], &[0.9][..]),
                (&[1][..], &[2.0][..]),
            ],
            "the model computed the label 2, expected 0 to 1",
        ),
        (
            &labeled,
            vec![
                (&[1, 4][..], &[0.0; 4][..]),
                (&[1][..], &[0.9][..]),
                (&[1][..], &[0.5][..]),
            ],
            "the model computed the label 0.5, expected a whole number",
        ),
        (
            &labeled,
            vec![
                (&[2, 4][..], &[0.0; 8][..]),
                (&[1][..], &[0.9][..]),
                (&[2][..], &[0.0; 2][..]),
            ],
            "the model computed 2 boxes with scores of the shape [1] and labels of the shape [2]",
        ),
    ] {
        assert_eq!(detect(detector, &outputs), Err(expected.to_owned()));
    }
}
