//! Lists: arrays in the file, separated by commas in an environment variable.

use std::ops::Range;
use std::time::Duration;

use toml::de::DeValue;

use super::{Found, Integer, Mismatch, Rule, TimeSpan, Written, count};
use crate::config::units;
use crate::resources::Cpus;
use crate::secret::has_password;

/// Highest number of CPUs that Linux supports.
const MAX_CPUS: u64 = 1024;

/// A number of CPUs, or a list of CPU numbers.
pub(in crate::config) struct CpuChoice;

impl Rule for CpuChoice {
    type Value = Cpus;

    fn expected(&self) -> String {
        format!(
            "an integer from 1 to {MAX_CPUS}, or a list of CPU numbers from 0 to {}",
            MAX_CPUS - 1
        )
    }

    fn read(&self, written: &Written<'_>) -> Result<Cpus, Mismatch> {
        let Written::Toml(DeValue::Array(array)) = written else {
            let count = count(MAX_CPUS).read(written);
            return count.map(Cpus::Count).map_err(|mismatch| Mismatch {
                expected: self.expected(),
                ..mismatch
            });
        };
        if array.is_empty() {
            return Err(Mismatch {
                found: Found::Description("an empty list".to_owned()),
                ..self.mismatch(written, None)
            });
        }
        let number = Integer::<usize>::new(0, MAX_CPUS - 1);
        let mut cpus = array
            .iter()
            .map(|element| {
                let read = number.read(&Written::Toml(element.get_ref()));
                read.map_err(|mismatch| mismatch.in_list(Some(element.span())))
            })
            .collect::<Result<Vec<usize>, _>>()?;
        cpus.sort_unstable();
        cpus.dedup();
        Ok(Cpus::These(cpus))
    }
}

/// A list whose elements obey one rule.
pub(in crate::config) struct List<R>(pub(in crate::config) R);

impl<R: Rule> Rule for List<R> {
    type Value = Vec<R::Value>;

    fn expected(&self) -> String {
        format!("a list in which each element is {}", self.0.expected())
    }

    fn is_secret(&self) -> bool {
        self.0.is_secret()
    }

    fn read(&self, written: &Written<'_>) -> Result<Vec<R::Value>, Mismatch> {
        match written {
            Written::Toml(DeValue::String(text)) => {
                let hint = if self.is_secret() || has_password(text) {
                    "put it in brackets".to_owned()
                } else {
                    format!("put it in brackets: [{text:?}]")
                };
                Err(self.mismatch(written, Some(hint)))
            }
            _ => match read_elements(&self.0, written) {
                Some(read) => read,
                None => Err(self.mismatch(written, None)),
            },
        }
    }
}

/// A list of durations in ascending order.
pub(in crate::config) struct Ascending {
    pub(in crate::config) each: TimeSpan,
    pub(in crate::config) max: usize,
}

impl Rule for Ascending {
    type Value = Vec<Duration>;

    fn expected(&self) -> String {
        format!(
            "a list of up to {} elements in ascending order, each {}",
            self.max,
            self.each.expected()
        )
    }

    fn read(&self, written: &Written<'_>) -> Result<Vec<Duration>, Mismatch> {
        let Some(list) = read_elements(&self.each, written) else {
            return Err(self.mismatch(written, None));
        };
        let list = list?;
        let invalid = |found: String| {
            Err(Mismatch {
                found: Found::Description(found),
                ..self.mismatch(written, None)
            })
        };
        if list.len() > self.max {
            return invalid(format!("{} elements", list.len()));
        }
        match list.windows(2).find(|pair| pair[0] >= pair[1]) {
            Some(pair) => {
                let shown = [pair[0], pair[1]].map(units::show_duration);
                invalid(format!("\"{}\" after \"{}\"", shown[1], shown[0]))
            }
            None => Ok(list),
        }
    }
}

/// Reads each element of a list; `None` if the value is not a list.
fn read_elements<R: Rule>(rule: &R, written: &Written<'_>) -> Option<Result<Vec<R::Value>, Mismatch>> {
    let read = |element: Written<'_>, span: Option<Range<usize>>| {
        rule.read(&element).map_err(|mismatch| mismatch.in_list(span))
    };
    match written {
        Written::Text(text) => Some(
            text.split(',')
                .map(str::trim)
                .filter(|element| !element.is_empty())
                .map(|element| read(Written::Text(element), None))
                .collect(),
        ),
        Written::Toml(DeValue::Array(array)) => Some(
            array
                .iter()
                .map(|element| read(Written::Toml(element.get_ref()), Some(element.span())))
                .collect(),
        ),
        Written::Toml(_) => None,
    }
}
