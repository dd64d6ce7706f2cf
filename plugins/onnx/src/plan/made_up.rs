//! Synthetic items for the trial: sizes for dynamic dimensions, and values that many models accept. Models do not declare which
//! values they accept, so there are several attempts, the most informative first.

use half::{bf16, f16};

use super::{Plan, Slot, texts};
use crate::network::Dim;
use crate::task::{Origin, Sample, SampleTensor};
use crate::values::{ElementType, Values};

/// Sizes for dynamic dimensions, in the order in which they are tried. Sizes above 1 come first, since a dimension of 1 hides
/// mistakes.
const SIZES: [usize; 10] = [8, 32, 224, 2, 64, 512, 1, 16, 640, 4000];

/// Maximum number of attempts. Each can take as long as the model takes to fail.
const MAX_ATTEMPTS: usize = 60;

/// Maximum number of elements of a synthetic item with dynamic dimensions.
pub(super) const MAX_ELEMENTS: usize = 1 << 22;

/// Maximum number of elements of any synthetic item.
const MAX_FIXED_ELEMENTS: usize = 1 << 27;

/// How the values of an item are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pattern {
    /// Floats from -1 to 1; integers 0 and 1, which are valid tokens, masks and booleans.
    Mixed,
    /// Floats from 0 to 1; integers 1, which are valid lengths and indices.
    Ones,
    /// Floats 0; integers from 1 to 5.
    Small,
    /// All values 0.
    Zeros,
}

/// Parameters for synthetic items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    size: usize,
    /// Size of dimensions that count previous results, such as the length of a key-value cache.
    past: usize,
    /// Rank of inputs without a declared shape.
    rank: usize,
    pattern: Pattern,
}

impl Plan {
    /// The attempts that yield different items for these inputs.
    pub(super) fn attempts(&self) -> Vec<Attempt> {
        let is_open = self
            .inputs
            .iter()
            .any(|slot| !slot.is_fixed() && !self.is_image());
        let has_past = self.inputs.iter().flat_map(Slot::open_names).any(is_past);
        let has_rank = self.inputs.iter().all(|slot| slot.dims.is_some());
        let sizes = if is_open { &SIZES[..] } else { &SIZES[..1] };
        let ranks = if has_rank { &[0][..] } else { &[1, 2, 0, 4, 3] };
        let mut attempts = Vec::new();
        // Wrong sizes are the most common cause of failure, so all sizes are tried before the next pattern.
        for pattern in [Pattern::Mixed, Pattern::Ones, Pattern::Small, Pattern::Zeros] {
            for &size in sizes {
                let pasts = if has_past { vec![0, size, 1] } else { vec![size] };
                for past in pasts {
                    attempts.extend(ranks.iter().map(|&rank| Attempt {
                        size,
                        past,
                        rank,
                        pattern,
                    }));
                }
            }
        }
        attempts.truncate(MAX_ATTEMPTS);
        attempts
    }

    /// Generates an item for the attempt. Different seeds yield different items. Returns `None` if the item would be too large.
    pub(super) fn make_up(&self, attempt: Attempt, seed: u64) -> Option<Sample> {
        if let Some(texts) = &self.texts {
            // Synthetic tokens would reveal nothing more.
            return (seed == 1).then(|| texts.read(texts::EXAMPLE).ok()).flatten();
        }
        let mut total = 0_usize;
        let mut tensors = Vec::new();
        for (index, slot) in self.inputs.iter().enumerate() {
            let shape = match &self.images {
                Some(images) if images.slot() == index => images.plain_shape()?,
                Some(images) => {
                    tensors.push(images.plain_sizes(index)?);
                    continue;
                }
                None => slot.made_up_shape(attempt),
            };
            let count = shape
                .iter()
                .try_fold(1_usize, |product, size| product.checked_mul(*size))?;
            total = total.checked_add(count)?;
            if total > MAX_FIXED_ELEMENTS || (total > MAX_ELEMENTS && !slot.is_fixed()) {
                return None;
            }
            let repeats = if slot.spec.sequence { 2 } else { 1 };
            for position in 0..repeats {
                let mut random = Random(seed.wrapping_mul(1000) + 10 * index as u64 + position);
                // Items of different magnitudes reveal whether a model computes a scale over the batch.
                let scale = if seed.is_multiple_of(2) { 4.0 } else { 1.0 };
                tensors.push(SampleTensor {
                    slot: index,
                    values: values(slot, count, attempt.pattern, scale, &mut random),
                    shape: shape.clone(),
                });
            }
        }
        Some(Sample(tensors, Origin::default()))
    }
}

impl Slot {
    /// Names of the dynamic dimensions.
    fn open_names(&self) -> impl Iterator<Item = &str> {
        self.dims.iter().flatten().filter_map(|dim| match dim {
            Dim::Open(name) => Some(name.as_str()),
            Dim::Fixed(_) => None,
        })
    }

    fn made_up_shape(&self, attempt: Attempt) -> Vec<usize> {
        match &self.dims {
            Some(dims) => dims
                .iter()
                .map(|dim| match dim {
                    Dim::Fixed(size) => *size,
                    Dim::Open(name) => open_size(name, attempt.size, attempt.past),
                })
                .collect(),
            None => vec![attempt.size.min(8); attempt.rank],
        }
    }
}

/// Size for a dynamic dimension, given that of dimensions that count previous results and of all others. Exporters write sums as
/// names, such as `past_sequence_length + 1`.
pub(super) fn open_size(name: &str, size: usize, past: usize) -> usize {
    let term = |term: &str| match term.trim() {
        number if number.parse::<usize>().is_ok() => number.parse().unwrap_or(size),
        name if is_past(name) => past,
        _ => size,
    };
    name.split('+').map(term).sum()
}

pub(super) fn is_past(name: &str) -> bool {
    let name = name.to_lowercase();
    name.contains("past") || name.contains("cache")
}

fn values(slot: &Slot, count: usize, pattern: Pattern, scale: f64, random: &mut Random) -> Values {
    let is_mask = slot.spec.file_name.to_lowercase().contains("mask");
    let mut fraction = || match pattern {
        // Multiples of 1/16 are exact in every float type, and short in examples.
        Pattern::Mixed => (random.below(33) as f64 / 16.0 - 1.0) * scale,
        Pattern::Ones => random.below(17) as f64 / 16.0,
        Pattern::Small | Pattern::Zeros => 0.0,
    };
    let fractions: Vec<f64> = match slot.spec.held {
        ElementType::F64 | ElementType::F32 | ElementType::F16 | ElementType::Bf16 => {
            (0..count).map(|_| fraction()).collect()
        }
        _ => Vec::new(),
    };
    let mut integer = || match pattern {
        Pattern::Mixed if is_mask => 1,
        Pattern::Mixed => random.below(2) as u8,
        Pattern::Ones => 1,
        Pattern::Small => 1 + random.below(5) as u8,
        Pattern::Zeros => 0,
    };
    let integers: Vec<u8> = match fractions.is_empty() {
        true => (0..count).map(|_| integer()).collect(),
        false => Vec::new(),
    };
    let integers = integers.into_iter();
    match slot.spec.held {
        ElementType::F64 => Values::F64(fractions),
        ElementType::F32 => Values::F32(fractions.into_iter().map(|value| value as f32).collect()),
        ElementType::F16 => Values::F16(fractions.into_iter().map(f16::from_f64).collect()),
        ElementType::Bf16 => Values::Bf16(fractions.into_iter().map(bf16::from_f64).collect()),
        ElementType::I64 => Values::I64(integers.map(i64::from).collect()),
        ElementType::I32 => Values::I32(integers.map(i32::from).collect()),
        ElementType::I16 => Values::I16(integers.map(i16::from).collect()),
        ElementType::I8 => Values::I8(integers.map(|value| value as i8).collect()),
        ElementType::U64 => Values::U64(integers.map(u64::from).collect()),
        ElementType::U32 => Values::U32(integers.map(u32::from).collect()),
        ElementType::U16 => Values::U16(integers.map(u16::from).collect()),
        ElementType::U8 => Values::U8(integers.collect()),
        ElementType::Bool => Values::Bool(integers.map(|value| value != 0).collect()),
        ElementType::Text => Values::Text(integers.map(|value| value.to_string()).collect()),
    }
}

/// A small deterministic random number generator, so that every load uses the same items.
struct Random(u64);

impl Random {
    /// Returns a roughly uniform number below `limit`, by SplitMix64 (Steele, Lea and Flood, 2014).
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}
