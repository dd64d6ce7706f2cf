//! Reads the inputs and outputs that a file declares, of any ONNX type. The parser of `rten_onnx` supports only tensors and
//! sequences, so this one reads the declarations and skips everything else.

use std::collections::HashMap;
use std::fs::File;

use rten_onnx::onnx::{DataType, TypeProtoTensor};
use rten_onnx::protobuf::{DecodeMessage, Fields, OwnedValues, ProtobufError, ReadValue, ValueReader};

/// The inputs and outputs that a file declares.
#[derive(Debug, Default)]
pub(crate) struct Interface {
    pub(crate) inputs: Vec<Declaration>,
    pub(crate) outputs: Vec<Declaration>,
    /// Whether the file defines operators as functions, which may replace standard ones.
    pub(crate) has_functions: bool,
}

/// A declared input or output.
#[derive(Debug, Default)]
pub(crate) struct Declaration {
    pub(crate) name: String,
    pub(crate) kind: Type,
}

/// Type of a value.
#[derive(Debug, Default)]
pub(crate) enum Type {
    Tensor(TypeProtoTensor),
    Sequence(Box<Type>),
    Optional(Box<Type>),
    /// Types of the keys and values.
    Map(DataType, Box<Type>),
    SparseTensor,
    /// No type, or a type that this parser does not support.
    #[default]
    Unknown,
}

impl Declaration {
    /// Whether the file does not declare the type, or declares a tensor without the type of its elements.
    pub(crate) fn is_untyped(&self) -> bool {
        match &self.kind {
            Type::Unknown => true,
            Type::Tensor(tensor) => tensor.elem_type.is_none_or(|elements| elements == DataType(0)),
            _ => false,
        }
    }

    /// Sets the type that was inferred for an untyped declaration. A declared shape remains.
    fn infer(&mut self, inferred: Type) {
        match (&mut self.kind, inferred) {
            (Type::Tensor(tensor), Type::Tensor(inferred)) => tensor.elem_type = inferred.elem_type,
            (kind, inferred) => *kind = inferred,
        }
    }
}

impl Type {
    /// A tensor of any shape.
    pub(crate) fn tensor(elements: DataType) -> Self {
        Self::Tensor(TypeProtoTensor {
            elem_type: Some(elements),
            shape: None,
        })
    }

    /// Describes the type for messages.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Tensor(_) => "tensor".to_owned(),
            Self::Sequence(element) => format!("sequence of {}s", element.text()),
            Self::Optional(value) => format!("optional {}", value.text()),
            Self::Map(..) => "map".to_owned(),
            Self::SparseTensor => "sparse tensor".to_owned(),
            Self::Unknown => "value without a type".to_owned(),
        }
    }
}

impl Interface {
    /// Sets the types of the outputs whose types the file does not declare, from inferred types by name.
    pub(crate) fn infer_outputs(&mut self, mut types: HashMap<String, Type>) {
        for output in self.outputs.iter_mut().filter(|output| output.is_untyped()) {
            if let Some(inferred) = types.remove(&output.name) {
                output.infer(inferred);
            }
        }
    }

    pub(crate) fn read(file: File) -> Result<Self, ProtobufError> {
        /// `ModelProto`
        #[derive(Default)]
        struct Model {
            interface: Interface,
            has_functions: bool,
        }

        impl DecodeMessage for Model {
            type Types = OwnedValues;

            fn decode_fields<R: ReadValue<Types = OwnedValues>>(
                mut fields: Fields<R>,
            ) -> Result<Self, ProtobufError> {
                let mut model = Self::default();
                while let Some(mut field) = fields.next()? {
                    match field.number() {
                        7 => model.interface = Interface::decode_field(&mut field)?,
                        25 => {
                            model.has_functions = true;
                            field.skip()?;
                        }
                        _ => field.skip()?,
                    }
                }
                Ok(model)
            }
        }

        let Model {
            interface,
            has_functions,
        } = Model::decode(ValueReader::from_file(file))?;
        Ok(Self {
            has_functions,
            ..interface
        })
    }
}

/// `GraphProto`
impl DecodeMessage for Interface {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut interface = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                11 => interface.inputs.push(Declaration::decode_field(&mut field)?),
                12 => interface.outputs.push(Declaration::decode_field(&mut field)?),
                _ => field.skip()?,
            }
        }
        Ok(interface)
    }
}

/// `ValueInfoProto`
impl DecodeMessage for Declaration {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut declaration = Self::default();
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => declaration.name = field.read_string()?,
                2 => declaration.kind = Type::decode_field(&mut field)?,
                _ => field.skip()?,
            }
        }
        Ok(declaration)
    }
}

/// `TypeProto`
impl DecodeMessage for Type {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut kind = Self::Unknown;
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => kind = Self::Tensor(TypeProtoTensor::decode_field(&mut field)?),
                4 => kind = Self::Sequence(Box::new(Element::decode_field(&mut field)?.value)),
                5 => {
                    let element = Element::decode_field(&mut field)?;
                    kind = Self::Map(element.key, Box::new(element.value));
                }
                8 => {
                    field.skip()?;
                    kind = Self::SparseTensor;
                }
                9 => kind = Self::Optional(Box::new(Element::decode_field(&mut field)?.value)),
                _ => field.skip()?,
            }
        }
        Ok(kind)
    }
}

/// `TypeProto.Sequence` and `TypeProto.Optional`, in which field 1 is the element type, or `TypeProto.Map`, in which field 1 is
/// the key type and field 2 the value type.
struct Element {
    key: DataType,
    value: Type,
}

impl DecodeMessage for Element {
    type Types = OwnedValues;

    fn decode_fields<R: ReadValue<Types = OwnedValues>>(
        mut fields: Fields<R>,
    ) -> Result<Self, ProtobufError> {
        let mut element = Self {
            key: DataType(0),
            value: Type::Unknown,
        };
        while let Some(mut field) = fields.next()? {
            match field.number() {
                1 => match field.get_enum() {
                    Ok(key) => element.key = DataType(key),
                    Err(_) => element.value = Type::decode_field(&mut field)?,
                },
                2 => element.value = Type::decode_field(&mut field)?,
                _ => field.skip()?,
            }
        }
        Ok(element)
    }
}
