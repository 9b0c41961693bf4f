//! The cases of every operation: one generator each, named in [`generate`].

mod attention;
mod composites;
mod elementwise;
mod experts;
mod memory;
mod norms;
mod products;
mod routing;

use super::case::{Builder, Case, Variant};
use crate::{operations::Operation, types::Type};

/// What a generator gets: where its cases go, and which types are asked for.
pub(super) struct Cases<'a> {
    operation: Operation,
    seed: u64,
    wants: &'a dyn Fn(Type) -> bool,
    emit: &'a mut dyn FnMut(Case),
}

impl Cases<'_> {
    /// The same case in each of these variants. The label names the sizes.
    fn add(&mut self, ty: Type, label: &str, variants: &[Variant], build: impl Fn(&mut Builder)) {
        for &variant in variants {
            let mut builder = Builder::new(self.seed, self.operation, ty, label, variant);
            build(&mut builder);
            (self.emit)(builder.finish());
        }
    }

    /// Those of `all` that are asked for.
    fn types<'t>(&self, all: &'t [Type]) -> impl Iterator<Item = Type> + use<'t> {
        let wanted: Vec<bool> = all.iter().map(|&ty| (self.wants)(ty)).collect();
        all.iter().copied().zip(wanted).filter(|(_, w)| *w).map(|(ty, _)| ty)
    }
}

/// Makes the cases of an operation, those of the types that `wants` asks for where it has several.
pub(super) fn generate(operation: Operation, seed: u64, wants: &dyn Fn(Type) -> bool, emit: &mut dyn FnMut(Case)) {
    let generator = match operation {
        Operation::Rows => memory::rows,
        Operation::Copy => memory::copy,
        Operation::CacheStore => memory::cache_store,
        Operation::Product => products::product,
        Operation::ProductAdd => products::product_add,
        Operation::Products => products::products,
        Operation::GatedProduct => products::gated_product,
        Operation::ExpertProduct => experts::expert_product,
        Operation::ExpertProductAdd => experts::expert_product_add,
        Operation::GatedExpertProduct => experts::gated_expert_product,
        Operation::RmsNorm => norms::rms_norm,
        Operation::RmsMatch => norms::rms_match,
        Operation::Sparsify => norms::sparsify,
        Operation::Rope => norms::rope,
        Operation::Attention => attention::attention,
        Operation::Add => elementwise::add,
        Operation::Mul => elementwise::mul,
        Operation::Unary => elementwise::unary,
        Operation::Gated => elementwise::gated,
        Operation::Combine => elementwise::combine,
        Operation::TopK => routing::top_k,
        Operation::Pick => routing::pick,
        Operation::NormAdd => composites::norm_add,
        Operation::NormRope => composites::norm_rope,
        Operation::MixCoefficients => composites::mix_coefficients,
    };
    generator(&mut Cases {
        operation,
        seed,
        wants,
        emit,
    });
}

/// A number as a parameter word.
fn word(value: f32) -> u32 {
    value.to_bits()
}
