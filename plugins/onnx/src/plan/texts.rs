//! Text inputs of a task: a tokenizer, and the model inputs that it fills.

use std::fs;

use plugin_sdk::{ItemError, LoadContext, LoadError};
use transformer::{Tokenizer, Tokens};

use super::{BatchMode, Keys, Slot};
use crate::answers::settings::TokenizerSettings;
use crate::network::{Dim, shape_text};
use crate::task::{Origin, Sample, SampleTensor};
use crate::values::{ElementType, Values};

/// Default maximum number of tokens, if neither the settings nor the model specify one.
const MAX_LENGTH: usize = 512;

/// Example text for the trial and the documentation.
pub(crate) const EXAMPLE: &str = "A short text, for example.";

/// Converts texts to the inputs of a task.
pub(crate) struct Texts {
    tokenizer: Tokenizer,
    prefix: String,
    inputs: Vec<TextInput>,
    /// Fixed number of tokens that the model takes, if any. Shorter texts are padded.
    fixed_length: Option<usize>,
    /// Whether the tensors have a batch dimension of 1.
    has_batch: bool,
}

struct TextInput {
    role: Role,
    held: ElementType,
}

/// What an input contains for each token.
#[derive(Clone, Copy)]
enum Role {
    Ids,
    /// 1 for tokens and 0 for padding.
    Mask,
    /// Segment of the token in a pair of texts: always the first.
    Types,
    Positions,
}

const ROLES: [(&str, Role); 4] = [
    ("input_ids", Role::Ids),
    ("attention_mask", Role::Mask),
    ("token_type_ids", Role::Types),
    ("position_ids", Role::Positions),
];

impl Texts {
    /// `None` if the task does not take texts.
    pub(super) fn new(
        settings: Option<&TokenizerSettings>,
        inputs: &[Slot],
        mode: BatchMode,
        keys: &Keys<'_>,
        context: &LoadContext,
    ) -> Result<Option<Self>, LoadError> {
        let Some(settings) = settings else {
            return Ok(None);
        };
        let key = keys.of("tokenizer", true);
        let rank = if mode == BatchMode::Unbatched { 2 } else { 1 };
        let mut fixed_length = None;
        let mut text_inputs = Vec::new();
        for slot in inputs {
            text_inputs.push(TextInput {
                role: role(slot, inputs.len() == 1, &key)?,
                held: slot.spec.held,
            });
            match slot.dims.as_deref() {
                Some([.., Dim::Fixed(length)]) => fixed_length = Some(*length),
                Some([.., Dim::Open(_)]) => {}
                _ => return Err(no_tokens(slot, &key)),
            }
            if slot.dims.as_ref().is_none_or(|dims| dims.len() != rank) {
                return Err(no_tokens(slot, &key));
            }
        }
        if !text_inputs.iter().any(|input| matches!(input.role, Role::Ids)) {
            let message = "the task has no input `input_ids`: give it this name with `rename`";
            return Err(LoadError::setting(key, message));
        }
        let written = settings.max_length.map(usize::from);
        if let (Some(written), Some(fixed)) = (written, fixed_length)
            && written > fixed
        {
            let message = format!("{written}, expected at most {fixed}, which is what the model takes");
            return Err(LoadError::setting(format_args!("{key}.max_length"), message));
        }
        let max_length = written.or(fixed_length).unwrap_or(MAX_LENGTH);
        let path = context.path(&settings.file);
        let unusable = |problem: &dyn std::fmt::Display| {
            LoadError::setting(
                format_args!("{key}.file"),
                format_args!("`{}` cannot be used: {problem}", path.display()),
            )
        };
        let definition = fs::read(&path).map_err(|error| unusable(&error))?;
        let tokenizer = Tokenizer::read(&definition, max_length, settings.truncate, settings.lowercase)
            .map_err(|error| unusable(&error.message()))?;
        Ok(Some(Self {
            tokenizer,
            prefix: settings.prefix.clone(),
            inputs: text_inputs,
            fixed_length,
            has_batch: mode == BatchMode::Unbatched,
        }))
    }

    /// Converts one text to an item.
    pub(crate) fn read(&self, text: &str) -> Result<Sample, ItemError> {
        let tokens = self.tokenizer.text_after(&self.prefix, text)?;
        let length = self.fixed_length.unwrap_or(tokens.len());
        let tensor = |(slot, input): (usize, &TextInput)| SampleTensor {
            slot,
            shape: if self.has_batch {
                vec![1, length]
            } else {
                vec![length]
            },
            values: Values::from_integers(&self.fill(input.role, &tokens, length), input.held),
        };
        let origin = Origin {
            tokens: Some(tokens.len()),
            ..Origin::default()
        };
        Ok(Sample(
            self.inputs.iter().enumerate().map(tensor).collect(),
            origin,
        ))
    }

    /// A text of about this number of tokens. `None` if texts cannot have that many.
    pub(crate) fn sample(&self, tokens: u64) -> Option<String> {
        self.tokenizer.sample(&self.prefix, tokens)
    }

    fn fill(&self, role: Role, tokens: &Tokens, length: usize) -> Vec<u32> {
        let (mut values, padding) = match role {
            Role::Ids => (tokens.ids.clone(), self.tokenizer.padding()),
            Role::Mask => (vec![1; tokens.len()], 0),
            Role::Types => (tokens.types.clone(), 0),
            Role::Positions => ((0..length as u32).collect(), 0),
        };
        values.resize(length, padding);
        values
    }
}

fn role(slot: &Slot, is_only: bool, key: &str) -> Result<Role, LoadError> {
    let name = &slot.spec.name;
    let known = ROLES.iter().find(|(known, _)| known == name);
    let role = match known {
        Some((_, role)) => *role,
        // A single input can only hold the token ids.
        None if is_only => Role::Ids,
        None => {
            let message = format!(
                "input `{name}` is not among those that a tokenizer fills, expected {}: choose with `inputs`, or give it one of these \
                 names with `rename`",
                ROLES.map(|(name, _)| format!("`{name}`")).join(", ")
            );
            return Err(LoadError::setting(key, message));
        }
    };
    let wide = matches!(
        slot.spec.held,
        ElementType::I64
            | ElementType::I32
            | ElementType::U64
            | ElementType::U32
            | ElementType::F32
            | ElementType::F64
    );
    match role {
        Role::Ids | Role::Positions if !wide => Err(no_tokens(slot, key)),
        _ if slot.spec.sequence || slot.spec.held == ElementType::Text => Err(no_tokens(slot, key)),
        role => Ok(role),
    }
}

fn no_tokens(slot: &Slot, key: &str) -> LoadError {
    let shape = slot
        .dims
        .as_deref()
        .map_or("an undeclared shape".to_owned(), |dims| {
            format!("items of the shape {}", shape_text(dims))
        });
    LoadError::setting(
        key,
        format_args!(
            "input `{}` takes {} in {shape}, expected an integer for each token: [length]",
            slot.spec.name,
            slot.spec.dtype.name()
        ),
    )
}
