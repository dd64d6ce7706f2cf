//! Sizes and counts, as products of an integer and symbols. One of the symbols is the number of items in the batch. There are no
//! approximations: a size that cannot be expressed exactly becomes a new symbol.

use std::cell::RefCell;
use std::collections::HashMap;

/// A product of an integer and symbols.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Size {
    coefficient: i64,
    /// Sorted; a symbol that occurs twice is squared.
    symbols: Vec<Symbol>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Symbol {
    /// Unique identifier.
    id: u32,
    /// Whether it depends on the number of items in the batch.
    batch: bool,
    /// Whether it is a dimension, that is, a non-negative integer.
    dimension: bool,
}

/// The number of items in the batch.
const BATCH: Symbol = Symbol {
    id: 0,
    batch: true,
    dimension: true,
};

impl Size {
    pub(super) fn known(value: i64) -> Self {
        Self {
            coefficient: value,
            symbols: Vec::new(),
        }
    }

    pub(super) fn batch() -> Self {
        Self {
            coefficient: 1,
            symbols: vec![BATCH],
        }
    }

    fn symbol(symbol: Symbol) -> Self {
        Self {
            coefficient: 1,
            symbols: vec![symbol],
        }
    }

    /// The number, if the size has no symbols.
    pub(super) fn value(&self) -> Option<i64> {
        self.symbols.is_empty().then_some(self.coefficient)
    }

    pub(super) fn is(&self, value: i64) -> bool {
        self.value() == Some(value)
    }

    /// Whether it depends on the number of items in any way.
    pub(super) fn depends_on_batch(&self) -> bool {
        self.symbols.iter().any(|symbol| symbol.batch)
    }

    /// Whether it is the number of items times a factor that does not depend on the number of items.
    pub(super) fn counts_items(&self) -> bool {
        let mut batch = self.symbols.iter().filter(|symbol| symbol.batch);
        batch.next() == Some(&BATCH) && batch.next().is_none() && self.coefficient > 0
    }

    /// Whether it is known to be a non-negative integer.
    pub(super) fn is_dimension(&self) -> bool {
        self.coefficient >= 0 && self.symbols.iter().all(|symbol| symbol.dimension)
    }

    /// The product of both; `None` on 64-bit overflow.
    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        let coefficient = self.coefficient.checked_mul(other.coefficient)?;
        if coefficient == 0 {
            return Some(Self::known(0));
        }
        let mut symbols = [&self.symbols[..], &other.symbols].concat();
        symbols.sort_unstable();
        Some(Self { coefficient, symbols })
    }

    /// The exact quotient; `None` if the division leaves a remainder or `divisor` is 0.
    pub(super) fn over(&self, divisor: &Self) -> Option<Self> {
        if divisor.coefficient == 0 || self.coefficient % divisor.coefficient != 0 {
            return None;
        }
        let mut symbols = self.symbols.clone();
        for symbol in &divisor.symbols {
            let index = symbols.iter().position(|own| own == symbol)?;
            symbols.remove(index);
        }
        Some(Self {
            coefficient: self.coefficient / divisor.coefficient,
            symbols,
        })
    }

    /// The sum; `None` if the symbols differ (unless one of the sizes is 0) or on 64-bit overflow.
    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        if self.symbols != other.symbols {
            return match (self.value(), other.value()) {
                (Some(0), _) => Some(other.clone()),
                (_, Some(0)) => Some(self.clone()),
                _ => None,
            };
        }
        let coefficient = self.coefficient.checked_add(other.coefficient)?;
        let symbols = if coefficient == 0 {
            Vec::new()
        } else {
            self.symbols.clone()
        };
        Some(Self { coefficient, symbols })
    }

    /// The product of all sizes; `None` on 64-bit overflow.
    pub(super) fn product<'a>(sizes: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        sizes
            .into_iter()
            .try_fold(Self::known(1), |product, size| product.times(size))
    }
}

/// The symbols of one analysis. The same computation on the same sizes yields the same symbol.
#[derive(Default)]
pub(super) struct Symbols(RefCell<HashMap<(String, Vec<Size>), Symbol>>);

impl Symbols {
    /// The symbol for the number that `what` computes from `from`.
    pub(super) fn number(&self, what: &str, from: &[Size]) -> Size {
        self.get(what, from, false)
    }

    /// The symbol for the dimension that `what` computes from `from`.
    pub(super) fn dimension(&self, what: &str, from: &[Size]) -> Size {
        self.get(what, from, true)
    }

    fn get(&self, what: &str, from: &[Size], dimension: bool) -> Size {
        let mut known = self.0.borrow_mut();
        let id = u32::try_from(known.len() + 1).unwrap_or(u32::MAX);
        let symbol = known
            .entry((format!("{what} {dimension}"), from.to_vec()))
            .or_insert(Symbol {
                id,
                batch: from.iter().any(Size::depends_on_batch),
                dimension,
            });
        Size::symbol(*symbol)
    }
}

#[cfg(test)]
mod tests {
    use super::{Size, Symbols};

    #[test]
    fn sizes_divide_only_without_a_remainder() {
        let symbols = Symbols::default();
        let length = symbols.dimension("length", &[]);
        let all = Size::product([&Size::batch(), &length, &Size::known(12)]).expect("fits");

        let heads = Size::product([&Size::batch(), &Size::known(4)]).expect("fits");
        assert_eq!(all.over(&heads), length.times(&Size::known(3)));
        assert_eq!(all.over(&Size::known(5)), None);
        assert_eq!(length.over(&Size::batch()), None);
    }

    #[test]
    fn a_computation_on_the_batch_depends_on_it() {
        let symbols = Symbols::default();
        let halved = symbols.number("Div", &[Size::batch(), Size::known(2)]);

        assert!(halved.depends_on_batch());
        assert!(!halved.counts_items());
        assert!(Size::batch().counts_items());
        assert_eq!(halved, symbols.number("Div", &[Size::batch(), Size::known(2)]));
    }
}
