use std::sync::Arc;

use backend_api::{
    abi_stable::std_types::RStr,
    contract::HostServices,
    operations::Operation::{self, *},
};

use models::{architecture::Model, gguf::Gguf};

use super::{Double, fused_mixture, mixture, model};
use crate::{
    execution::{
        Engine,
        engine::{Settings, plan_for},
    },
    progress::Meter,
};

extern "C" fn no_log(_: u32, _: RStr<'_>, _: RStr<'_>) {}

/// A model on these devices.
fn engine_of((file, model, settings): (Arc<Gguf>, Model, Settings), doubles: &[Double<'_>]) -> Engine {
    let targets: Vec<_> = doubles.iter().map(|d| d.target("d")).collect();
    let plan = plan_for(&file, &model, &settings, &targets).unwrap();
    let services = HostServices {
        log: no_log,
        level: 0,
        reserved: 0,
        reserved2: [0; 6],
    };
    Engine::open(file, &model, &settings, plan, services, &Meter::default()).unwrap()
}

fn engine(doubles: &[Double<'_>]) -> Engine {
    engine_of(model(), doubles)
}

/// The bits of the wanted logits of two steps: smaller than the largest, without wanted columns and with one, of one
/// sequence and of two.
fn logits_of(engine: &mut Engine) -> Vec<u32> {
    let mut bits = Vec::new();
    let mut step = |columns: &[(usize, u32)], tokens: &[u32], wanted: &[u32]| {
        engine.evaluate(columns, tokens, wanted).unwrap();
        bits.extend((0..wanted.len()).flat_map(|row| engine.logits(row).map(f32::to_bits).collect::<Vec<_>>()));
    };
    step(&[(0, 2)], &[5, 6], &[]);
    step(&[(0, 1), (1, 1)], &[7, 8], &[1]);
    bits
}

fn logits(doubles: &[Double<'_>]) -> Vec<u32> {
    logits_of(&mut engine(doubles))
}

const COMPOSITES: &[Operation] = &[ProductAdd, Products, GatedProduct, NormAdd, NormRope];

/// The reference is all devices' arithmetic, so nothing but a mistake in placing, planning or carrying changes a bit.
#[test]
fn the_same_numbers_come_of_every_placement() {
    let whole = logits(&[Double::default()]);
    assert!(whole.len() > 3 && whole.iter().all(|&bits| f32::from_bits(bits).is_finite()));
    let refusals: [(&[Operation], bool); 3] = [
        (COMPOSITES, true),
        (&[Rows, RmsNorm, CacheStore, Gated, GatedProduct], true),
        (Operation::ALL.as_slice(), false),
    ];
    for (refuses, refuses_views) in refusals {
        let first = Double {
            refuses,
            refuses_views,
            discrete: true,
        };
        assert!(logits(&[first, Double::default()]) == whole, "{refuses:?}");
    }
    let [first, second] = [
        (&[ProductAdd, Products, GatedProduct, Product, Attention] as &[_], true),
        (&[Attention, Gated, Rope], false),
    ]
    .map(|(refuses, refuses_views)| Double {
        refuses,
        refuses_views,
        discrete: true,
    });
    assert!(logits(&[first, second, Double::default()]) == whole, "three devices");
}

#[test]
fn rows_of_a_fused_weight_go_to_a_device_that_takes_views() {
    let whole = logits_of(&mut engine_of(mixture(), &[Double::default()]));
    for discrete in [false, true] {
        let double = Double {
            discrete,
            ..Double::default()
        };
        assert!(
            logits_of(&mut engine_of(fused_mixture(), &[double])) == whole,
            "discrete: {discrete}"
        );
    }
    let refusing = Double {
        refuses_views: true,
        discrete: true,
        ..Double::default()
    };
    let mut engine = engine_of(fused_mixture(), &[refusing, Double::default()]);
    assert!(logits_of(&mut engine) == whole);
    let elsewhere: Vec<_> = engine.plan().refusals.iter().map(|r| (r.operation, r.nodes)).collect();
    assert_eq!(elsewhere, [("expert_product", 4)], "gate and up of two layers");
}

#[test]
fn devices_are_asked_for_what_the_plan_says_to_the_byte() {
    let first = Double {
        refuses: &[Attention],
        discrete: true,
        ..Double::default()
    };
    let engine = engine(&[first, Double::default()]);
    let planned: Vec<u64> = engine.plan().devices.iter().map(|d| d.allocated()).collect();
    let counted: Vec<u64> = engine.counters().unwrap().iter().map(|(_, c)| c[0].value).collect();
    assert_eq!((counted.len(), counted), (2, planned));
}

#[test]
fn a_malformed_step_is_refused_and_changes_nothing() {
    let mut engine = engine(&[Double::default()]);
    let mut refused = |count, tokens: &[u32], wanted: &[u32]| {
        engine.evaluate(&[(0, count)], tokens, wanted).unwrap_err();
        assert_eq!(engine.cache().length(0), 0);
    };
    refused(2, &[5], &[]);
    refused(2, &[5, 6], &[2]);
    refused(2, &[5, 6], &[1, 0]);
}
