//! Sections: the written values of a set of keys, and the macro that declares one.
//!
//! The keys of the configuration are declared in `keys`, and those of the file of API keys in `key_file`.

use super::error::Origin;
use super::rule::{Mismatch, Written};

/// What applies if a key is not set. Values are TOML.
#[derive(Clone, Copy, Debug)]
pub(super) enum KeyDefault {
    /// A built-in value.
    Value(&'static str),
    /// No fixed value: what applies instead, in words, and an example of a value.
    Derived {
        applies: &'static str,
        example: &'static str,
    },
    /// The key must be set; with an example.
    Required(&'static str),
}

/// One key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    /// The accepted values, in words.
    pub(super) expected: fn() -> String,
    /// What stands for the value in help, if that is not the name of the key.
    pub(super) value_name: fn() -> Option<&'static str>,
    /// The accepted words, if there are only a few.
    pub(super) words: fn() -> Vec<&'static str>,
    pub(super) default: KeyDefault,
    /// The lines of its meaning.
    pub(super) meaning: &'static [&'static str],
    pub(super) variable: Option<&'static str>,
    pub(super) flag: Option<&'static str>,
}

/// A value and where it was written. Comparison ignores the origin.
#[derive(Clone, Debug)]
pub(super) struct Located<T> {
    pub(super) value: T,
    pub(super) origin: Origin,
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

/// The written values of a set of keys.
pub(super) trait Section {
    fn keys(&self) -> &'static [Key];

    /// Reads the value of one key and stores it. `None` if this section has no such key.
    fn read(&mut self, name: &str, written: &Written<'_>, origin: Origin) -> Option<Result<(), Mismatch>>;

    /// The values of this section, and those of `lower` for keys that are not set here.
    fn or(self, lower: &Self) -> Self
    where
        Self: Sized;

    /// The origin of each value.
    fn origins(&self) -> Vec<&Origin>;
}

macro_rules! optional {
    () => {
        None
    };
    ($value:expr) => {
        Some($value)
    };
}

/// Declares a section: the struct of its written values, and its keys.
macro_rules! section {
    (
        $(#[$doc:meta])*
        $section:ident {
            $( $(#[doc = $meaning:literal])+
               $field:ident: $type:ty = $rule:expr, $default:expr $(, $variable:literal $(, $flag:literal)?)?; )*
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub(super) struct $section { $( $(#[doc = $meaning])+ pub(super) $field: Option<Located<$type>>, )* }

        impl $section {
            pub(super) const KEYS: &'static [Key] = &[ $( Key {
                name: stringify!($field),
                expected: || $rule.expected(),
                value_name: || $rule.value_name(),
                words: || $rule.words(),
                default: $default,
                meaning: &[$($meaning),+],
                variable: optional!($($variable)?),
                flag: optional!($($($flag)?)?),
            }, )* ];

            pub(super) fn empty() -> Self {
                Self { $( $field: None, )* }
            }
        }

        impl Section for $section {
            fn keys(&self) -> &'static [Key] {
                Self::KEYS
            }

            fn read(&mut self, name: &str, written: &Written<'_>, origin: Origin) -> Option<Result<(), Mismatch>> {
                match name {
                    $( stringify!($field) => Some($rule.read(written).map(|value| {
                        self.$field = Some(Located { value, origin });
                    })), )*
                    _ => None,
                }
            }

            fn or(self, lower: &Self) -> Self {
                Self { $( $field: self.$field.or_else(|| lower.$field.clone()), )* }
            }

            fn origins(&self) -> Vec<&Origin> {
                [$( self.$field.as_ref().map(|located| &located.origin) ),*].into_iter().flatten().collect()
            }
        }
    };
}

pub(super) use {optional, section};
