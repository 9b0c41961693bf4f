//! Tensors of a file by the names that files have for them, their shapes checked before anything is built.

use backend_api::{decode::decode_row, types::Type};

use crate::{
    error::LoadError,
    gguf::{Gguf, TensorInfo, TensorType},
    names::{Names, Rows, Spelling},
    origins,
};

/// Values of the model file that are there and have the shape that the architecture asks for: a tensor, or rows of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Weight {
    /// Index into [`Gguf::tensors`].
    pub tensor: usize,
    /// The type that graphs see.
    pub ty: Type,
    /// Sizes, fastest first, unused ones 1.
    pub dims: [u32; 4],
    /// Whether the file has the tensor as graphs see it.
    pub form: Form,
    /// The rows of the tensor that these are, where they are not all of it.
    pub slice: Option<Slice>,
}

/// What the host does with a tensor of the file before graphs see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Nothing: its bytes serve where they lie.
    AsStored,
    /// A vector in another type than F32 is widened to that.
    Widened,
    /// MXFP4 in the order of older Ollama files is put into the usual one.
    Rewritten,
}

/// Rows of a tensor that holds more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slice {
    /// The dimension that counts rows: 1 of matrices, 0 of vectors.
    pub axis: usize,
    /// Which of them.
    pub rows: Rows,
}

impl Weight {
    /// The whole tensor that this is, or is part of.
    pub fn whole(&self) -> Weight {
        let mut whole = Weight { slice: None, ..*self };
        if let Some(Slice { axis, rows }) = self.slice {
            whole.dims[axis] = rows.of;
        }
        whole
    }
}

/// A weight matrix `[K, M]` and its bias `[M]`, if it has one; or n of each side by side, `[K, M, n]` and `[M, n]`.
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

/// The dimension that counts the rows of a vector, and of a matrix.
const VECTOR: usize = 0;
const MATRIX: usize = 1;

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
        let info = info.ok_or_else(|| self.missing(&name.into(), "a matrix".into()))?;
        let rows = i32::try_from(info.dims[1]).ok().filter(|&rows| rows > 0);
        rows.map(i32::cast_unsigned)
            .ok_or_else(|| self.wrong(info, "a matrix of 1 to 2147483647 rows".into()))
    }

    /// A matrix or a stack of matrices, of any type that products take; `dims` are its sizes, fastest first.
    pub fn matrix(&self, names: impl Into<Names>, dims: &[u32]) -> Result<Weight, LoadError> {
        self.find(&names.into(), dims, MATRIX)
    }

    /// A norm's weights or a bias: what graphs hold in F32. Other types are widened on load.
    pub fn vector(&self, names: impl Into<Names>, dims: &[u32]) -> Result<Weight, LoadError> {
        let weight = self.find(&names.into(), dims, VECTOR)?;
        Ok(match weight.ty {
            Type::F32 => weight,
            _ => Weight {
                ty: Type::F32,
                form: Form::Widened,
                ..weight
            },
        })
    }

    /// As [`Weights::vector`], where the tensor may be absent.
    pub fn optional_vector(&self, names: impl Into<Names>, dims: &[u32]) -> Result<Option<Weight>, LoadError> {
        let names = names.into();
        let there = self.candidate(&names, dims, VECTOR).is_some();
        there.then(|| self.vector(names, dims)).transpose()
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

    fn find(&self, names: &Names, dims: &[u32], axis: usize) -> Result<Weight, LoadError> {
        let candidate = self.candidate(names, dims, axis);
        let (spelling, index, info) = candidate.ok_or_else(|| self.missing(names, shape(dims)))?;
        let whole = spelling.whole(dims, axis);
        if !has_shape(info, &whole) {
            return Err(self.wrong(info, shape(&whole)));
        }
        let (ty, form) = match info.kind {
            TensorType::Known(ty) if Type::WEIGHTS.contains(&ty) => (ty, Form::AsStored),
            TensorType::Mxfp4Old if axis == MATRIX => (Type::MXFP4, Form::Rewritten),
            _ => return Err(self.wrong(info, format!("F32, F16, BF16 or a quantized type {}", shape(dims)))),
        };
        Ok(Weight {
            tensor: index,
            ty,
            dims: padded(dims),
            form,
            slice: spelling.rows.map(|rows| Slice { axis, rows }),
        })
    }

    /// The first spelling that the file has in its shape, or else in another.
    fn candidate<'n>(
        &self,
        names: &'n Names,
        dims: &[u32],
        axis: usize,
    ) -> Option<(&'n Spelling, usize, &'a TensorInfo)> {
        let there = names.spellings().iter().filter_map(|spelling| {
            let index = self.file.index(&spelling.name)?;
            let info = &self.file.tensors()[index];
            // a tensor that may hold others too, but does not, is one of the others
            let other = spelling.rows.is_some() && has_shape(info, dims);
            (!other).then_some((spelling, index, info))
        });
        let fitting = there
            .clone()
            .find(|(spelling, _, info)| has_shape(info, &spelling.whole(dims, axis)));
        fitting.or_else(|| there.clone().next())
    }

    fn missing(&self, names: &Names, expected: String) -> LoadError {
        let (usual, others) = names.split();
        let others: Vec<String> = others.iter().map(Spelling::to_string).collect();
        let instead = (!others.is_empty()).then(|| format!("{} would do as well", others.join(", or ")));
        let original = origins::original(&usual.name).map(|name| format!("the original model calls it {name}"));
        let fused = origins::fused(&usual.name).filter(|fused| {
            let spelled = names.spellings().iter().any(|spelling| spelling.name == *fused);
            !spelled && self.has(fused)
        });
        let fused = fused.map(|name| format!("the file has {name:?}, where this architecture needs separate tensors"));
        LoadError::Missing {
            file: self.file.name(),
            name: usual.name.clone(),
            expected,
            hints: [instead, fused, original].into_iter().flatten().collect(),
        }
    }

    fn wrong(&self, info: &TensorInfo, expected: String) -> LoadError {
        LoadError::Shape {
            file: self.file.name(),
            name: info.name.clone(),
            found: described(info),
            expected,
            hints: Vec::new(),
        }
    }
}

impl Block<'_> {
    /// The whole name of tensor `name` of this layer.
    pub fn name(&self, name: &str) -> String {
        format!("blk.{}.{name}", self.layer)
    }

    /// M of the matrix `NAME.weight` `[K, M]`, for what only the tensor tells.
    pub fn rows(&self, name: &str) -> Result<u32, LoadError> {
        self.weights.rows(&self.name(&format!("{name}.weight")))
    }

    /// The vector `NAME.weight` `[n]`.
    pub fn vector(&self, names: impl Into<Names>, n: u32) -> Result<Weight, LoadError> {
        self.vector_named(names.into().with(".weight"), n)
    }

    /// The vector `NAME` `[n]`.
    pub fn vector_named(&self, names: impl Into<Names>, n: u32) -> Result<Weight, LoadError> {
        self.weights.vector(self.within(&names.into()), &[n])
    }

    /// The matrix `NAME.weight` `[k, m]`.
    pub fn matrix(&self, names: impl Into<Names>, k: u32, m: u32) -> Result<Weight, LoadError> {
        self.weights.matrix(self.within(&names.into().with(".weight")), &[k, m])
    }

    /// The matrix `NAME.weight` `[k, m]` with its bias `[m]`.
    pub fn linear(&self, names: impl Into<Names>, k: u32, m: u32) -> Result<Linear, LoadError> {
        self.with_bias(&names.into(), &[k, m])
    }

    /// The matrices `NAME.weight` `[k, m, n]` with their biases `[m, n]`.
    pub fn stack(&self, names: impl Into<Names>, [k, m, n]: [u32; 3]) -> Result<Linear, LoadError> {
        self.with_bias(&names.into(), &[k, m, n])
    }

    fn within(&self, names: &Names) -> Names {
        names.within(&format!("blk.{}", self.layer))
    }

    fn with_bias(&self, names: &Names, dims: &[u32]) -> Result<Linear, LoadError> {
        let [weight, bias] = [".weight", ".bias"].map(|part| self.within(&names.with(part)));
        Ok(Linear {
            weight: self.weights.matrix(weight, dims)?,
            bias: match self.biased.contains(&names.usual()) {
                true => Some(self.weights.vector(bias, &dims[1..])?),
                false => self.weights.optional_vector(bias, &dims[1..])?,
            },
        })
    }
}

fn has_shape(info: &TensorInfo, dims: &[u32]) -> bool {
    info.dims == padded(dims).map(u64::from)
}

fn described(info: &TensorInfo) -> String {
    format!("{} {}", info.kind, shape(info.shape()))
}

fn padded(dims: &[u32]) -> [u32; 4] {
    std::array::from_fn(|i| dims.get(i).copied().unwrap_or(1))
}

fn shape<N: std::fmt::Display>(dims: &[N]) -> String {
    let sizes: Vec<String> = dims.iter().map(N::to_string).collect();
    format!("[{}]", sizes.join(", "))
}
