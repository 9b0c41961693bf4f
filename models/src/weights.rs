//! Tensors of a file by name, their shapes checked before anything is built.

use backend_api::types::Type;

use crate::{
    error::LoadError,
    gguf::{Gguf, TensorInfo, TensorType},
};

/// A tensor of the model file that is there and has the shape that the architecture asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Index into [`Gguf::tensors`].
    pub tensor: usize,
    /// The type that graphs see: the file's, or F32 where the host widens a vector.
    pub ty: Type,
    /// Sizes, fastest first, unused ones 1.
    pub dims: [u32; 4],
    /// Whether the file holds the vector in another type than F32, so that the host widens it on load.
    pub widened: bool,
}

/// A weight matrix `[K, M]` and its bias `[M]`, if it has one.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// `[K, M]`.
    pub weight: Weight,
    /// `[M]`.
    pub bias: Option<Weight>,
}

/// Finds weights in a file.
#[derive(Clone, Copy)]
pub struct Weights<'a> {
    file: &'a Gguf,
}

impl<'a> Weights<'a> {
    /// The weights of `file`.
    pub fn new(file: &'a Gguf) -> Self {
        Weights { file }
    }

    /// Whether the file has tensor `name`.
    pub fn has(&self, name: &str) -> bool {
        self.file.tensor(name).is_some()
    }

    /// M of the matrix `[K, M]` called `name`, for what only the tensor tells: the size of the vocabulary. It fits i32.
    pub fn rows(&self, name: &str) -> Result<u32, LoadError> {
        let info = self.file.tensor(name);
        let info = info.ok_or_else(|| self.missing(name, "a matrix".into()))?;
        let rows = i32::try_from(info.dims[1]).ok().filter(|&rows| rows > 0);
        rows.map(i32::cast_unsigned)
            .ok_or_else(|| self.wrong(info, "a matrix of 1 to 2147483647 rows".into()))
    }

    /// A matrix or a stack of matrices, of any type that products take; `dims` are its sizes, fastest first.
    pub fn matrix(&self, name: &str, dims: &[u32]) -> Result<Weight, LoadError> {
        let (index, info) = self.find(name, dims)?;
        match info.kind {
            TensorType::Known(ty) if Type::WEIGHTS.contains(&ty) => Ok(Weight {
                tensor: index,
                ty,
                dims: padded(dims),
                widened: false,
            }),
            _ => Err(self.wrong(info, format!("F32, F16, BF16 or a quantized type {}", shape(dims)))),
        }
    }

    /// A norm's weights or a bias: what graphs hold in F32. Other types are widened on load.
    pub fn vector(&self, name: &str, dims: &[u32]) -> Result<Weight, LoadError> {
        let weight = self.matrix(name, dims)?;
        Ok(Weight {
            ty: Type::F32,
            widened: weight.ty != Type::F32,
            ..weight
        })
    }

    /// As [`Weights::vector`], where the tensor may be absent.
    pub fn optional_vector(&self, name: &str, dims: &[u32]) -> Result<Option<Weight>, LoadError> {
        self.has(name).then(|| self.vector(name, dims)).transpose()
    }

    /// `NAME.weight` `[k, m]` with `NAME.bias` `[m]` where the file has it.
    pub fn linear(&self, name: &str, k: u32, m: u32) -> Result<Linear, LoadError> {
        Ok(Linear {
            weight: self.matrix(&format!("{name}.weight"), &[k, m])?,
            bias: self.optional_vector(&format!("{name}.bias"), &[m])?,
        })
    }

    fn find(&self, name: &str, dims: &[u32]) -> Result<(usize, &'a TensorInfo), LoadError> {
        let index = self.file.index(name).ok_or_else(|| self.missing(name, shape(dims)))?;
        let info = &self.file.tensors()[index];
        if info.dims == padded(dims).map(u64::from) {
            Ok((index, info))
        } else {
            Err(self.wrong(info, shape(dims)))
        }
    }

    fn missing(&self, name: &str, expected: String) -> LoadError {
        LoadError::Missing {
            file: self.file.name(),
            name: name.into(),
            expected,
        }
    }

    fn wrong(&self, info: &TensorInfo, expected: String) -> LoadError {
        LoadError::Shape {
            file: self.file.name(),
            name: info.name.clone(),
            found: format!("{} {}", info.kind, shape(info.shape())),
            expected,
        }
    }
}

fn padded(dims: &[u32]) -> [u32; 4] {
    std::array::from_fn(|i| dims.get(i).copied().unwrap_or(1))
}

fn shape<N: std::fmt::Display>(dims: &[N]) -> String {
    let sizes: Vec<String> = dims.iter().map(N::to_string).collect();
    format!("[{}]", sizes.join(", "))
}
