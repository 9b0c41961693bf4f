//! The suite itself is tested: it passes a backend made of the reference, and catches faults put into it.

mod double;
mod faults;

use std::collections::HashSet;

use abi_stable::std_types::RStr;

use super::{Options, Report, cases::generate, check};
use crate::{contract::HostServices, operations::Operation, plugin::module, types::Type, validate};

use double::{Double, Fault, Right};

extern "C" fn no_log(_: u32, _: RStr<'_>, _: RStr<'_>) {}

const SERVICES: HostServices = HostServices {
    log: no_log,
    level: 0,
    reserved: 0,
    reserved2: [0; 6],
};

fn report<F: Fault>(operations: Option<&[Operation]>, types: Option<&[Type]>) -> Report {
    let options = Options {
        operations: operations.map(Into::into),
        types: types.map(Into::into),
        ..Options::default()
    };
    check(module::<Double<F>>(), SERVICES, 0, &options, &mut |_| {}).unwrap()
}

fn failures(report: &Report) -> Vec<String> {
    report
        .failures()
        .map(|c| format!("{}: {:?}", c.label, c.verdict))
        .collect()
}

/// One type of each kind of block: what tells the others apart is their decoding, which has its own tests.
const KINDS: [Type; 7] = [
    Type::F32,
    Type::F16,
    Type::BF16,
    Type::Q4_0,
    Type::Q8_0,
    Type::Q4_K,
    Type::I32,
];

#[test]
fn the_reference_passes_everything() {
    let report = report::<Right>(None, Some(&KINDS));
    assert_eq!(failures(&report), Vec::<String>::new());
    let reasons = report.refusals();
    assert!(reasons.is_empty(), "{reasons:?}");
    for operation in Operation::ALL {
        let tally = report.table()[&(Some(operation), Some(Type::F32))];
        assert!(tally.passed > 15, "{operation:?} {tally:?}");
    }
}

#[test]
fn cases_are_well_formed_and_have_labels_of_their_own() {
    let mut labels = HashSet::new();
    for operation in Operation::ALL {
        generate(operation, 0, &|_| true, &mut |case| {
            let valid = validate::graph(&case.draft.graph());
            assert!(valid.is_ok(), "{}: {valid:?}", case.label);
            assert!(labels.insert(case.label.clone()), "{} stands for two cases", case.label);
        });
    }
    assert!(labels.len() > 2000, "{} cases", labels.len());
}

#[test]
fn every_weight_type_has_cases_of_every_product() {
    for operation in [
        Operation::Product,
        Operation::ExpertProduct,
        Operation::Rows,
        Operation::GatedExpertProduct,
    ] {
        let mut types = HashSet::new();
        generate(operation, 0, &|_| true, &mut |case| {
            types.insert(case.ty);
        });
        assert_eq!(types.len(), Type::WEIGHTS.len());
    }
}

#[test]
fn the_seed_alone_decides_what_a_case_holds() {
    let contents = |seed, types: &[Type]| {
        let mut all = Vec::new();
        generate(Operation::Rows, seed, &|ty| types.contains(&ty), &mut |case| {
            if case.ty == Type::Q4_K {
                all.extend(case.contents.into_iter().map(|c| c.bytes));
            }
        });
        all
    };
    let first = contents(1, &Type::ALL);
    assert_eq!(first, contents(1, &[Type::Q4_K]));
    assert_ne!(first, contents(2, &Type::ALL));
}
