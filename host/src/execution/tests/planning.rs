use std::collections::BTreeSet;

use backend_api::{
    graph::{Role, Step, Symbol},
    operations::Operation::{Attention, CacheStore, Gated, Rope},
};

use super::{Double, model};
use crate::execution::{
    engine::plan_for,
    plan::{Plan, Region, Source},
};

fn plan(doubles: &[Double<'_>]) -> Plan {
    let (file, model, settings) = model();
    let targets: Vec<_> = doubles.iter().map(|d| d.target("d")).collect();
    plan_for(&file, &model, &settings, &targets).unwrap()
}

const WITHOUT_CACHE: Double<'static> = Double {
    refuses: &[CacheStore, Attention, Rope],
    refuses_views: false,
    discrete: true,
};

#[test]
fn a_device_that_serves_all_runs_one_program_and_the_others_have_no_share() {
    let plan = plan(&[Double::default(), Double::default()]);
    assert_eq!((plan.segments.len(), plan.devices.len(), plan.targets.len()), (1, 1, 2));
    assert_eq!(plan.segments[0].transfers, []);
}

#[test]
fn each_refused_stretch_is_a_program_of_its_own() {
    let plan = plan(&[
        Double {
            refuses: &[Gated],
            ..Double::default()
        },
        Double::default(),
    ]);
    // the composite of gate and up stays one: it is not what was refused
    assert_eq!(plan.segments.len(), 1);
    let plan = self::plan(&[WITHOUT_CACHE, Double::default()]);
    let devices: Vec<usize> = plan.segments.iter().map(|s| s.device).collect();
    assert_eq!(devices, [0, 1, 0, 1, 0, 1, 0, 1, 0]);
}

#[test]
fn transfers_carry_the_columns_of_the_step_and_no_more() {
    let plan = plan(&[WITHOUT_CACHE, Double::default()]);
    let step = Step {
        tokens: 3,
        rows: 0,
        ..Step::default()
    };
    for transfer in plan.segments.iter().flat_map(|s| &s.transfers) {
        let (of_most, columns) = match transfer.extent.symbol {
            Symbol::Tokens => (4, 3),
            Symbol::Rows => (2, 0),
            Symbol::None => panic!("{transfer:?} does not grow with the step"),
        };
        assert_eq!(transfer.extent.bytes, transfer.extent.column * of_most);
        assert_eq!(transfer.extent.in_step(&step), transfer.extent.column * columns);
    }
}

#[test]
fn what_is_carried_lies_inside_the_activations_of_both_devices() {
    let plan = plan(&[WITHOUT_CACHE, Double::default()]);
    for segment in &plan.segments {
        for transfer in &segment.transfers {
            assert_eq!(transfer.to.0, segment.device);
            assert_ne!(transfer.from.0, segment.device);
            for (device, spot) in [transfer.from, transfer.to] {
                assert_eq!(spot.region, Region::Activations);
                assert!(spot.offset + transfer.extent.bytes <= plan.devices[device].regions[&Region::Activations]);
            }
        }
    }
}

#[test]
fn uploaded_weights_are_bound_each_by_itself() {
    let plan = plan(&[WITHOUT_CACHE, Double::default()]);
    let mut places = BTreeSet::new();
    for segment in plan.segments.iter().filter(|s| s.device == 0) {
        let graph = segment.graph();
        for (tensor, bound) in graph.tensors.iter().map(|t| (t, segment.bound[t.buffer as usize])) {
            let upload = plan.devices[0].uploads.iter().find(|u| u.spot == bound.spot);
            let of_weights = bound.spot.region == Region::Weights;
            assert_eq!(
                of_weights,
                graph.buffers[tensor.buffer as usize].role == Role::Weight as u32
            );
            if of_weights {
                let Source::Weight(_, whole) = upload.unwrap().source else {
                    panic!("{upload:?}")
                };
                assert_eq!(Some(bound.bytes), whole.extent());
                places.insert(bound.spot.offset);
            } else {
                assert_eq!(bound.spot.offset, 0);
            }
        }
    }
    assert!(places.len() > 1, "{places:?}");
    let of_weights = plan.devices[0]
        .uploads
        .iter()
        .filter(|u| u.spot.region == Region::Weights);
    assert_eq!(places.len(), of_weights.count());
}

#[test]
fn a_device_holds_what_its_own_operations_touch() {
    let plan = plan(&[WITHOUT_CACHE, Double::default()]);
    let [first, second] = plan.devices.as_slice() else {
        panic!("{} devices", plan.devices.len())
    };
    // no importing: its weights are uploaded
    let weights = first.uploads.iter().filter(|u| matches!(u.source, Source::Weight(..)));
    assert!(weights.count() > 0 && first.files.is_empty() && first.regions[&Region::Weights] > 0);
    assert!(!first.regions.contains_key(&Region::Pools) && first.regions.contains_key(&Region::Logits));
    // neither weights nor logits: rope's frequencies, the cache and what attention reads and writes
    assert!(second.files.is_empty() && !second.regions.contains_key(&Region::Weights));
    assert!(second.regions.contains_key(&Region::Pools) && !second.regions.contains_key(&Region::Logits));
    assert!(plan.pools.iter().all(|pool| pool.device == 1));
    assert_eq!(plan.logits.0, 0);
}
