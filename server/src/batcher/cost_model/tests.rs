//! Known models are recovered from measured batches.

use proptest::prelude::*;

use super::*;

const SIZES: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
const WEIGHTS: [u64; 6] = [1, 16, 64, 128, 256, 512];

/// Deterministic noise, spread over -1 to 1.
fn noise(nth: usize) -> f64 {
    let mixed = (nth as u64).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    mixed as f64 / (1_u64 << 23) as f64 - 1.0
}

fn uniform(items: u64, weight: u64) -> BatchShape {
    BatchShape::of((0..items).map(|_| weight))
}

/// A batch whose weights are spread over half to twice of `weight`.
fn mixed(items: u64, weight: u64, seed: usize) -> BatchShape {
    let weights = (0..items).map(|nth| {
        let factor = 2.0_f64.powf(noise(seed * 1000 + nth as usize));
        (weight as f64 * factor).max(1.0) as u64
    });
    BatchShape::of(weights)
}

/// Every size with every weight.
fn grid(rule: WeightRule) -> Vec<BatchShape> {
    let cells = SIZES
        .into_iter()
        .flat_map(|items| WEIGHTS.map(|weight| (items, weight)));
    cells
        .enumerate()
        .map(|(seed, (items, weight))| match rule {
            WeightRule::Padded => uniform(items, weight),
            WeightRule::Sum => mixed(items, weight, seed),
        })
        .collect()
}

/// A known model.
#[derive(Clone, Copy, Debug)]
struct Truth {
    rule: WeightRule,
    coefficients: Vector,
    noise: f64,
}

impl Truth {
    fn cost(&self, shape: &BatchShape) -> f64 {
        dot(&shape.features(self.rule), &self.coefficients)
    }

    /// Measures each batch as often as `repeats` says.
    fn measure(&self, shapes: &[BatchShape], repeats: usize) -> Vec<Sample> {
        let shapes = (0..repeats).flat_map(|_| shapes.iter());
        shapes
            .enumerate()
            .map(|(nth, shape)| Sample {
                shape: *shape,
                measured: self.cost(shape) * (1.0 + self.noise * noise(nth)),
            })
            .collect()
    }

    /// Whether the cost of batches differs by more than the noise, so that there is variance to explain.
    fn varies(&self) -> bool {
        let shapes = grid(self.rule);
        (1..N).any(|nth| self.largest_part(nth, &shapes) > 0.7)
    }

    /// The largest part of a coefficient in the cost of any batch.
    fn largest_part(&self, nth: usize, shapes: &[BatchShape]) -> f64 {
        shapes
            .iter()
            .map(|shape| shape.features(self.rule)[nth] * self.coefficients[nth] / self.cost(shape))
            .fold(0.0, f64::max)
    }
}

fn rule() -> impl Strategy<Value = WeightRule> {
    prop::sample::select(vec![WeightRule::Padded, WeightRule::Sum])
}

/// Models with a realistic relation of the coefficients: each feature matters in some batch, or is absent.
fn truth(noise: f64) -> impl Strategy<Value = Truth> {
    let coefficient = || prop_oneof![1 => Just(0.0), 4 => 0.3..3.0];
    (rule(), 0.5..3.0, [coefficient(), coefficient(), coefficient()]).prop_map(
        move |(rule, fixed, [each, linear, square])| Truth {
            rule,
            coefficients: [2e6 * fixed, 1e5 * each, 4e3 * linear, 20.0 * square],
            noise,
        },
    )
}

proptest! {
    #[test]
    fn exact_measurements_give_the_exact_coefficients(truth in truth(0.0)) {
        let model = CostModel::fit(truth.rule, &truth.measure(&grid(truth.rule), 1)).expect("samples are valid");
        prop_assert!(!truth.varies() || model.r_squared() > 0.999_999);
        for (found, expected) in model.coefficients().into_iter().zip(truth.coefficients) {
            prop_assert!(found.is_identifiable);
            prop_assert!((found.value - expected).abs() <= expected * 1e-4 + 1e-6, "{model:?}");
        }
    }

    /// With noise, a coefficient that contributes a tenth of no batch is not found within 5%, and need not be.
    #[test]
    fn coefficients_that_matter_are_recovered_within_five_percent_from_noisy_measurements(truth in truth(0.02)) {
        let shapes = grid(truth.rule);
        let model = CostModel::fit(truth.rule, &truth.measure(&shapes, 10)).expect("samples are valid");
        prop_assert!(!truth.varies() || model.r_squared() > 0.99);
        for (nth, found) in model.coefficients().into_iter().enumerate() {
            let expected = truth.coefficients[nth];
            if truth.largest_part(nth, &shapes) > 0.3 {
                prop_assert!(found.is_identifiable, "c{nth} of {model:?}");
                prop_assert!((found.value - expected).abs() <= expected * 0.05, "c{nth}: {found:?}, not {expected}");
            }
        }
    }

    #[test]
    fn predictions_of_batches_that_were_not_measured_are_close_and_within_the_bound(truth in truth(0.03)) {
        let model = CostModel::fit(truth.rule, &truth.measure(&grid(truth.rule), 4)).expect("samples are valid");
        let mut exceeded = 0;
        let floor = SCALE_FLOOR * grid(truth.rule).iter().map(|shape| truth.cost(shape)).fold(0.0, f64::max);
        for nth in 0..500 {
            let (items, weight) = (1 + nth * 7 % 64, 1 + nth * 37 % 256);
            let shape = mixed(items, weight, nth as usize);
            let real = truth.cost(&shape) * (1.0 + truth.noise * noise(100_000 + nth as usize));
            let prediction = model.predict(&shape).expect("the model is determined");
            prop_assert!((prediction.expected - real).abs() <= 0.1 * real, "{prediction:?}, measured {real}");
            let margin = prediction.bound - prediction.expected;
            prop_assert!(margin >= 0.0 && margin <= 0.1 * prediction.expected.max(floor), "{prediction:?}");
            exceeded += usize::from(real > prediction.bound);
        }
        prop_assert!(exceeded <= 15, "{exceeded} of 500 exceeded the 99th percentile");
    }

    #[test]
    fn no_coefficient_is_negative_and_no_prediction_falls_if_an_item_is_added(
        rule in rule(),
        measured in prop::collection::vec(0.0..100.0, 42),
        (items, weight, more) in (1..50_u64, 1..400_u64, 1..400_u64),
    ) {
        let samples: Vec<Sample> = grid(rule)
            .into_iter()
            .zip(measured)
            .map(|(shape, measured)| Sample { shape, measured })
            .collect();
        let model = CostModel::fit(rule, &samples).expect("samples are valid");
        prop_assert!(model.coefficients().iter().all(|coefficient| coefficient.value >= 0.0));
        let smaller = uniform(items, weight);
        let mut larger = smaller;
        larger.add(more);
        let expected = |shape| model.predict(shape).expect("the grid determines the model").expected;
        prop_assert!(expected(&larger) >= expected(&smaller));
    }

    /// Compared with every support, by another method: coordinate descent.
    #[test]
    fn the_fit_is_the_nonnegative_one_with_the_least_squares(measured in prop::collection::vec(1.0..100.0, 20)) {
        let rows: Vec<Row> = measured
            .iter()
            .enumerate()
            .map(|(nth, measured)| Row {
                features: std::array::from_fn(|feature| 1.0 + noise(nth * N + feature)),
                measured: *measured,
            })
            .collect();
        let design = Design::of(&rows);
        let error = |coefficients: &Vector| -> f64 {
            rows.iter().map(|row| (row.measured - dot(&row.features, coefficients)).powi(2)).sum()
        };
        let found = design.nonnegative_least_squares(&rows);
        let mut descended = [0.0; N];
        for nth in (0..N).cycle().take(4000) {
            let squares: f64 = rows.iter().map(|row| row.features[nth].powi(2)).sum();
            let gradient: f64 = rows
                .iter()
                .map(|row| row.features[nth] * (row.measured - dot(&row.features, &descended)))
                .sum();
            descended[nth] = f64::max(0.0, descended[nth] + gradient / squares);
        }
        prop_assert!(error(&found) <= error(&descended) * (1.0 + 1e-6));
    }
}

fn memory() -> Truth {
    Truth {
        rule: WeightRule::Padded,
        coefficients: [2e6, 1e5, 4e3, 20.0],
        noise: 0.0,
    }
}

fn identifiable(model: &CostModel) -> [bool; N] {
    model
        .coefficients()
        .map(|coefficient| coefficient.is_identifiable)
}

#[test]
fn coefficients_of_weights_are_not_identifiable_if_all_items_weigh_the_same() {
    let shapes: Vec<BatchShape> = SIZES.into_iter().map(|items| uniform(items, 100)).collect();
    let model = CostModel::fit(WeightRule::Padded, &memory().measure(&shapes, 2)).expect("samples are valid");
    assert_eq!(identifiable(&model), [true, false, false, false]);
    // Batches of such items can be predicted all the same; others cannot.
    let shape = uniform(24, 100);
    let prediction = model.predict(&shape).expect("weights of 100 were measured");
    assert!((prediction.expected / memory().cost(&shape) - 1.0).abs() < 1e-6);
    assert_eq!(model.predict(&uniform(24, 200)), Err(NotIdentifiable));
}

#[test]
fn two_weights_do_not_determine_a_square() {
    let shapes: Vec<BatchShape> = SIZES
        .into_iter()
        .flat_map(|items| [uniform(items, 10), uniform(items, 100)])
        .collect();
    let model = CostModel::fit(WeightRule::Padded, &memory().measure(&shapes, 1)).expect("samples are valid");
    assert_eq!(identifiable(&model), [true, false, false, false]);
    assert!(model.predict(&uniform(40, 100)).is_ok());
    assert_eq!(model.predict(&uniform(40, 50)), Err(NotIdentifiable));
}

#[test]
fn single_items_do_not_tell_the_fixed_cost_from_that_of_an_item() {
    let shapes: Vec<BatchShape> = WEIGHTS.into_iter().map(|weight| uniform(1, weight)).collect();
    let model = CostModel::fit(WeightRule::Padded, &memory().measure(&shapes, 2)).expect("samples are valid");
    assert_eq!(identifiable(&model), [false, false, true, true]);
    assert_eq!(model.predict(&uniform(2, 64)), Err(NotIdentifiable));
}

#[test]
fn a_coefficient_that_noise_hides_is_not_identifiable() {
    let mut truth = memory();
    truth.noise = 0.5;
    let shapes: Vec<BatchShape> = [60, 62, 64, 66]
        .into_iter()
        .flat_map(|items| [500, 505, 510].map(|weight| uniform(items, weight)))
        .collect();
    let model = CostModel::fit(WeightRule::Padded, &truth.measure(&shapes, 1)).expect("samples are valid");
    assert_eq!(identifiable(&model), [false; N], "{model:?}");
}

#[test]
fn the_bound_is_wider_outside_of_the_measured_range() {
    let mut truth = memory();
    truth.noise = 0.05;
    let model =
        CostModel::fit(WeightRule::Padded, &truth.measure(&grid(truth.rule), 1)).expect("samples are valid");
    let relative = |shape: &BatchShape| {
        let prediction = model.predict(shape).expect("the model is determined");
        prediction.bound / prediction.expected
    };
    assert!(relative(&uniform(2000, 2)) > relative(&uniform(16, 128)));
}

#[test]
fn samples_that_cannot_be_fitted_are_rejected() {
    let sample = |measured| Sample {
        shape: uniform(1, 1),
        measured,
    };
    let fit = |samples: &[Sample]| CostModel::fit(WeightRule::Sum, samples).err();
    assert_eq!(fit(&[sample(1.0); 4]), Some(FitError::TooFew { found: 4 }));
    assert_eq!(fit(&[sample(0.0); 5]), Some(FitError::Zero));
    assert_eq!(fit(&[sample(-1.0); 5]), Some(FitError::Invalid(-1.0)));
    assert!(matches!(fit(&[sample(f64::NAN); 5]), Some(FitError::Invalid(_))));
    assert!(matches!(
        fit(&[sample(f64::INFINITY); 5]),
        Some(FitError::Invalid(_))
    ));
}

proptest! {
    #[test]
    fn a_model_that_was_written_and_read_is_equal_to_the_original(
        coefficients in prop::array::uniform4(0.0..1e9),
        noise in 0.0..0.3,
        is_padded in any::<bool>(),
        cells in 5..42_usize,
    ) {
        let rule = if is_padded { WeightRule::Padded } else { WeightRule::Sum };
        let truth = Truth { rule, coefficients, noise };
        let shapes: Vec<BatchShape> = grid(rule).into_iter().take(cells).collect();
        let model = CostModel::fit(rule, &truth.measure(&shapes, 1)).expect("samples are valid");
        let costs = TaskCosts { memory: Some(model), time: None };
        let written = serde_json::to_string(&costs).expect("a model can be written");
        prop_assert_eq!(serde_json::from_str::<TaskCosts>(&written).expect("it can be read"), costs);
    }
}

#[test]
fn an_invalid_value_of_a_written_model_is_named() {
    let model = CostModel::fit(
        WeightRule::Padded,
        &memory().measure(&grid(WeightRule::Padded), 1),
    );
    let mut written =
        serde_json::to_value(model.expect("samples are valid")).expect("a model can be written");
    written["margin"] = (-0.5).into();
    let error = serde_json::from_value::<CostModel>(written).expect_err("a margin is not negative");
    assert_eq!(
        error.to_string(),
        "invalid `margin` of a cost model: found -0.5, expected a finite number of at least 0"
    );
}

#[test]
fn the_bound_is_exact_for_a_batch_whose_error_is_the_margin() {
    let mut truth = memory();
    truth.noise = 0.1;
    let model =
        CostModel::fit(WeightRule::Padded, &truth.measure(&grid(truth.rule), 1)).expect("samples are valid");
    for shape in [uniform(1, 1), uniform(16, 128), uniform(500, 3)] {
        let bound = model.predict(&shape).expect("the model is determined").bound;
        let error = model.error(&shape, bound).expect("the model is determined");
        assert!(
            (error - model.margin()).abs() < 1e-9,
            "{error} {}",
            model.margin()
        );
        let wider = model.predict_with_margin(&shape, 2.0 * model.margin());
        assert!(wider.expect("the model is determined").bound > bound);
    }
}

/// Costs of which everything up to a minimum is measured as that minimum.
fn clipped(samples: Vec<Sample>, minimum: f64) -> Vec<Sample> {
    let clip = |sample: Sample| Sample {
        measured: sample.measured.max(minimum),
        ..sample
    };
    samples.into_iter().map(clip).collect()
}

#[test]
fn costs_below_the_minimum_do_not_bias_the_fit() {
    // More than half of the batches cost less than the minimum.
    let (truth, minimum) = (memory(), 1e7);
    let samples = clipped(truth.measure(&grid(truth.rule), 1), minimum);
    let hidden = samples.iter().filter(|sample| sample.measured == minimum).count();
    assert!((21..30).contains(&hidden), "{hidden}");
    let model = CostModel::fit_above(minimum, truth.rule, &samples).expect("samples are valid");
    for (found, expected) in model.coefficients().into_iter().zip(truth.coefficients) {
        assert!((found.value - expected).abs() < expected * 1e-4, "{model:?}");
    }
    assert!(
        model.margin() < 1e-6 && model.r_squared() > 0.999_999,
        "{model:?}"
    );
    for shape in [uniform(1, 1), uniform(4, 16), uniform(24, 100), uniform(64, 512)] {
        let predicted = model.predict(&shape).expect("the model is determined");
        let real = truth.cost(&shape).max(minimum);
        assert!(
            (predicted.expected / real - 1.0).abs() < 1e-4,
            "{shape:?}: {predicted:?}, not {real}"
        );
    }
    let biased = CostModel::fit(truth.rule, &samples).expect("samples are valid");
    assert!(biased.coefficients()[0].value > 3.0 * truth.coefficients[0]);
}

#[test]
fn no_batch_that_costs_at_most_the_minimum_is_predicted_to_cost_more() {
    // A model that does not follow the features: a jump. The costly batches alone would predict a high fixed cost.
    let minimum = 1e7;
    let shapes = grid(WeightRule::Padded);
    let measure = |shape: &BatchShape| Sample {
        shape: *shape,
        measured: if shape.items * shape.heaviest < 2000 {
            minimum
        } else {
            1e8 + shape.sum as f64 * 1e3
        },
    };
    let samples: Vec<Sample> = shapes.iter().map(measure).collect();
    let costly: Vec<Sample> = samples
        .iter()
        .copied()
        .filter(|sample| sample.measured > minimum)
        .collect();
    let ignorant = CostModel::fit(WeightRule::Padded, &costly).expect("samples are valid");
    let model = CostModel::fit_above(minimum, WeightRule::Padded, &samples).expect("samples are valid");
    let small = uniform(1, 1);
    let cost = |model: &CostModel| model.expected(&small).expect("the model is determined");
    assert!(
        cost(&ignorant) > 9e7 && cost(&model) < 3e7,
        "{} {}",
        cost(&ignorant),
        cost(&model)
    );
}

#[test]
fn batches_of_the_minimum_count_if_the_others_determine_less() {
    // Only the two largest batches cost more.
    let truth = memory();
    let shapes: Vec<BatchShape> = WEIGHTS.into_iter().map(|weight| uniform(1, weight)).collect();
    let minimum = truth.cost(&uniform(1, 200));
    let samples = clipped(truth.measure(&shapes, 3), minimum);
    let model = CostModel::fit_above(minimum, WeightRule::Padded, &samples).expect("samples are valid");
    assert_eq!(
        identifiable(&model)[2..],
        identifiable(&CostModel::fit(WeightRule::Padded, &samples).expect("valid"))[2..]
    );
    assert_eq!(
        model
            .predict(&uniform(1, 20))
            .map(|predicted| predicted.expected >= minimum),
        Ok(true)
    );
}

#[test]
fn all_batches_of_the_minimum_are_a_constant_cost() {
    let samples = clipped(memory().measure(&grid(WeightRule::Padded), 1), 1e12);
    let model = CostModel::fit_above(1e12, WeightRule::Padded, &samples).expect("samples are valid");
    let predicted = model.predict(&uniform(7, 99)).expect("the model is determined");
    assert!((predicted.expected / 1e12 - 1.0).abs() < 1e-6, "{predicted:?}");
}
