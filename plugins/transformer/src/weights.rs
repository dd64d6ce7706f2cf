//! The weights in safetensors files, by name, as 32-bit floats.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use plugin_sdk::LoadError;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::files::{file_error, read};

/// The contents of the files with the weights of a model: one file, or several that `model.safetensors.index.json` lists.
pub struct WeightFiles(Vec<Vec<u8>>);

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: std::collections::BTreeMap<String, PathBuf>,
}

impl WeightFiles {
    /// Reads a `.safetensors` file, or all files that an index (`.json`) lists.
    ///
    /// # Errors
    /// A file cannot be read, or the index is invalid. The error names the setting `folder`.
    pub fn read(path: &Path) -> Result<Self, LoadError> {
        let read_file = |path: &Path| {
            std::fs::read(path).map_err(|error| file_error(path, &format!("cannot be read: {error}")))
        };
        if path.extension().is_none_or(|extension| extension != "json") {
            return Ok(Self(vec![read_file(path)?]));
        }
        let index: Option<Index> = read(path)?;
        let index = index.ok_or_else(|| file_error(path, "does not exist"))?;
        let names: BTreeSet<_> = index.weight_map.values().collect();
        let is_plain = |name: &&PathBuf| name.file_name() == Some(name.as_os_str());
        if let Some(name) = names.iter().find(|name| !is_plain(name)) {
            let message = format!(
                "lists the file `{}`, expected a name without directories",
                name.display()
            );
            return Err(file_error(path, &message));
        }
        let directory = path.parent().unwrap_or(Path::new(""));
        let files = names.iter().map(|name| read_file(&directory.join(name)));
        Ok(Self(files.collect::<Result<_, _>>()?))
    }
}

/// The tensors of a model.
pub struct Weights<'a> {
    files: Vec<SafeTensors<'a>>,
    /// Prefix of the names of the encoder's tensors, such as `bert.`.
    prefix: String,
    /// Names of the tensors that were returned.
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Weights<'a> {
    /// Reads the headers of the files. `anchor` is a tensor that the encoder must have; the prefix of its name is the prefix of all
    /// tensors of the encoder.
    ///
    /// # Errors
    /// A file is invalid, or there is no such tensor.
    pub fn read(files: &'a WeightFiles, anchor: &str) -> Result<Self, LoadError> {
        let files = files.0.iter().map(|file| SafeTensors::deserialize(file));
        let files = files.collect::<Result<Vec<_>, _>>()?;
        let names = files.iter().flat_map(SafeTensors::names);
        // The shortest prefix, because a nested encoder is not the one that is meant.
        let prefix = names
            .filter_map(|name| name.strip_suffix(anchor))
            .min_by_key(|prefix| prefix.len())
            .map(str::to_owned);
        let prefix = prefix.ok_or_else(|| LoadError::new(format_args!("it has no tensor `{anchor}`")))?;
        Ok(Self {
            files,
            prefix,
            read: RefCell::default(),
        })
    }

    /// Returns a tensor of the encoder, which must have this shape.
    ///
    /// # Errors
    /// The tensor is missing, has a different shape, or has an unsupported datatype.
    pub fn get(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        self.get_outer(&format!("{}{name}", self.prefix), shape)
    }

    /// Returns a tensor outside the encoder, such as one of a classifier.
    ///
    /// # Errors
    /// Same as [`get`](Self::get).
    pub fn get_outer(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
        let (name, tensor) = self
            .find(name)
            .ok_or_else(|| LoadError::new(format_args!("it has no tensor `{name}`")))?;
        if tensor.shape() != shape {
            return Err(LoadError::new(format_args!(
                "its tensor `{name}` has the shape {:?}, expected {shape:?}",
                tensor.shape()
            )));
        }
        let data = tensor.data();
        let values = match tensor.dtype() {
            Dtype::F32 => floats(data, f32::from_le_bytes),
            Dtype::F16 => floats(data, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => floats(data, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            other => {
                return Err(LoadError::new(format_args!(
                    "its tensor `{name}` is {other:?}, expected F32, F16 or BF16"
                )));
            }
        };
        self.read.borrow_mut().insert(name);
        Ok(values)
    }

    /// Finds a tensor by its name, or by the name that old versions gave to the scale and bias of normalizations.
    fn find(&self, name: &str) -> Option<(String, TensorView<'_>)> {
        let old = name
            .strip_suffix("LayerNorm.weight")
            .map(|stem| format!("{stem}LayerNorm.gamma"));
        let old = old.or_else(|| {
            name.strip_suffix("LayerNorm.bias")
                .map(|stem| format!("{stem}LayerNorm.beta"))
        });
        std::iter::once(name.to_owned()).chain(old).find_map(|name| {
            let tensor = self.files.iter().find_map(|file| file.tensor(&name).ok());
            tensor.map(|tensor| (name, tensor))
        })
    }

    /// Whether the encoder has a tensor with this name.
    pub fn has(&self, name: &str) -> bool {
        self.has_outer(&format!("{}{name}", self.prefix))
    }

    /// Whether there is a tensor with this name outside the encoder.
    pub fn has_outer(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Returns the number of rows of a two-dimensional tensor of the encoder.
    ///
    /// # Errors
    /// The tensor is missing.
    pub fn rows(&self, name: &str) -> Result<usize, LoadError> {
        let name = format!("{}{name}", self.prefix);
        let rows = self
            .find(&name)
            .and_then(|(_, tensor)| tensor.shape().first().copied());
        rows.ok_or_else(|| LoadError::new(format_args!("it has no tensor `{name}`")))
    }

    /// Checks that all tensors were used. `is_irrelevant` receives the names of the others, without the prefix of the encoder if
    /// they have it.
    ///
    /// # Errors
    /// A tensor was not used and is not irrelevant.
    pub fn check_all_read(&self, is_irrelevant: impl Fn(&str) -> bool) -> Result<(), LoadError> {
        let read = self.read.borrow();
        let names: BTreeSet<_> = self.files.iter().flat_map(SafeTensors::names).collect();
        let unused = names.into_iter().find(|name| {
            !read.contains(*name) && !is_irrelevant(name.strip_prefix(&*self.prefix).unwrap_or(name))
        });
        match unused {
            None => Ok(()),
            Some(name) => Err(LoadError::new(format_args!(
                "it has the tensor `{name}`, but `config.json` describes no part that uses it"
            ))),
        }
    }
}

fn floats<const N: usize>(data: &[u8], convert: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    let (elements, _) = data.as_chunks::<N>();
    elements.iter().copied().map(convert).collect()
}
