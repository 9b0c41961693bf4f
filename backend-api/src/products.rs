//! The inputs of the products, primitive and composite: what every backend resolves in the same way.

use crate::operations::Operation::{self, *};

/// Which input of a product is what; input 0 is x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Weights, each with its bias.
    pub weights: &'static [(usize, Option<usize>)],
    /// The experts' ids.
    pub ids: Option<usize>,
    /// What is added to the output.
    pub residual: Option<usize>,
    /// Whether the two weights are a gate and an up projection.
    pub gated: bool,
}

/// The roles of a product's inputs; none for other operations.
pub const fn roles(operation: Operation) -> Option<Roles> {
    let plain = Roles {
        weights: &[(1, None)],
        ids: None,
        residual: None,
        gated: false,
    };
    Some(match operation {
        Product => plain,
        ExpertProduct => Roles { ids: Some(2), ..plain },
        ProductAdd => Roles {
            weights: &[(1, Some(2))],
            residual: Some(3),
            ..plain
        },
        Products => Roles {
            weights: &[(1, Some(2)), (3, Some(4)), (5, Some(6)), (7, Some(8))],
            ..plain
        },
        GatedProduct => Roles {
            weights: &[(1, Some(3)), (2, Some(4))],
            gated: true,
            ..plain
        },
        ExpertProductAdd => Roles {
            weights: &[(1, Some(3))],
            ids: Some(2),
            ..plain
        },
        GatedExpertProduct => Roles {
            weights: &[(1, Some(4)), (2, Some(5))],
            ids: Some(3),
            gated: true,
            ..plain
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_product_has_weights_and_no_other_operation_has_roles() {
        for operation in Operation::ALL {
            let roles = roles(operation);
            assert_eq!(
                roles.is_some(),
                operation.name().contains("product"),
                "{}",
                operation.name()
            );
            assert!(roles.is_none_or(|roles| roles.weights[0].0 == 1));
            assert!(roles.is_none_or(|roles| !roles.gated || roles.weights.len() == 2));
        }
    }
}
