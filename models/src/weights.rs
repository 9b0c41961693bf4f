//! Tensors of a file by name, their shapes checked before anything is built.

use backend_api::{decode::decode_row, types::Type};

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

/// A weight matrix `[K, M]` and its bias `[M]`, if it has one; or n of them side by side, `[K, M, n]` and `[M, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// `[K, M]`, or `[K, M, n]`.
    pub weight: Weight,
    /// `[M]`, or `[M, n]`.
    pub bias: Option<Weight>,
}

/// The weights of one layer, whose names begin with `blk.I.`.
pub struct Block<'a> {
    weights: Weights<'a>,
    layer: u32,
    biased: &'a [&'a str],
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

    /// The weights of layer `layer`. The matrices that `biased` names must have a bias; others take theirs where the file
    /// has it.
    pub fn block(&self, layer: u32, biased: &'a [&'a str]) -> Block<'a> {
        Block {
            weights: *self,
            layer,
            biased,
        }
    }

    /// The numbers of the vector `[n]` called `name`, each above 0: what something is divided by on load.
    pub fn factors(&self, name: &str, n: u32) -> Result<Vec<f32>, LoadError> {
        let weight = self.vector(name, &[n])?;
        let info = &self.file.tensors()[weight.tensor];
        let mut factors = vec![0.0; n as usize];
        let decoded = match info.kind {
            TensorType::Known(ty) => decode_row(ty, self.file.data(info), &mut factors).is_ok(),
            _ => false,
        };
        if decoded && factors.iter().all(|&factor| factor.is_finite() && factor > 0.0) {
            Ok(factors)
        } else {
            Err(LoadError::Factors {
                file: self.file.name(),
                name: name.into(),
            })
        }
    }

    /// An error about experts that each have a tensor of their own, of which `name` is one.
    pub fn separate_experts(&self, name: &str) -> LoadError {
        LoadError::SeparateExperts {
            file: self.file.name(),
            name: name.into(),
        }
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

impl Block<'_> {
    fn name(&self, tensor: &str, part: &str) -> String {
        format!("blk.{}.{tensor}.{part}", self.layer)
    }

    /// The vector `NAME.weight` `[n]`.
    pub fn vector(&self, name: &str, n: u32) -> Result<Weight, LoadError> {
        self.weights.vector(&self.name(name, "weight"), &[n])
    }

    /// The matrix `NAME.weight` `[k, m]` with its bias `[m]`.
    pub fn linear(&self, name: &str, k: u32, m: u32) -> Result<Linear, LoadError> {
        self.with_bias(name, &[k, m])
    }

    /// The matrices `NAME.weight` `[k, m, n]` with their biases `[m, n]`.
    pub fn stack(&self, name: &str, [k, m, n]: [u32; 3]) -> Result<Linear, LoadError> {
        self.with_bias(name, &[k, m, n])
    }

    fn with_bias(&self, name: &str, dims: &[u32]) -> Result<Linear, LoadError> {
        let (weight, bias) = (self.name(name, "weight"), self.name(name, "bias"));
        Ok(Linear {
            weight: self.weights.matrix(&weight, dims)?,
            bias: match self.biased.contains(&name) {
                true => Some(self.weights.vector(&bias, &dims[1..])?),
                false => self.weights.optional_vector(&bias, &dims[1..])?,
            },
        })
    }
}

fn padded(dims: &[u32]) -> [u32; 4] {
    std::array::from_fn(|i| dims.get(i).copied().unwrap_or(1))
}

fn shape<N: std::fmt::Display>(dims: &[N]) -> String {
    let sizes: Vec<String> = dims.iter().map(N::to_string).collect();
    format!("[{}]", sizes.join(", "))
}
