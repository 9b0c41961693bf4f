use std::sync::Arc;

use backend_api::{
    abi_stable::std_types::RStr,
    contract::HostServices,
    operations::Operation::{self, *},
};

use models::{architecture::Model, gguf::Gguf};

use super::{Double, SEEN, WATCHED, fused_mixture, mixture, model};
use crate::{
    execution::{
        Engine, Plan,
        device::Target,
        engine::{Settings, plan_for, plan_on},
        layout::Layout,
    },
    progress::Meter,
};

extern "C" fn no_log(_: u32, _: RStr<'_>, _: RStr<'_>) {}

fn open((file, model, settings): (Arc<Gguf>, Model, Settings), plan: Plan) -> Engine {
    let services = HostServices {
        log: no_log,
        level: 0,
        reserved: 0,
        reserved2: [0; 6],
    };
    Engine::open(file, &model, &settings, plan, services, &Meter::default()).unwrap()
}

/// As many real devices.
fn apart(doubles: &[Double<'_>]) -> Vec<Target> {
    let numbered = |(number, double): (usize, &Double<'_>)| {
        let mut target = double.target("d");
        target.info.id = number as u32;
        target
    };
    doubles.iter().enumerate().map(numbered).collect()
}

/// A model on these devices.
fn engine_of(served: (Arc<Gguf>, Model, Settings), doubles: &[Double<'_>]) -> Engine {
    let plan = plan_for(&served.0, &served.1, &served.2, &apart(doubles)).unwrap();
    open(served, plan)
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
        for row in 0..wanted.len() {
            bits.extend(engine.logits(row).iter().map(|logit| logit.to_bits()));
        }
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

/// Layers on these devices in turn: what they leave goes over the host, or directly between parts of one real device.
#[test]
fn the_same_numbers_come_of_layers_on_several_devices() {
    let whole = logits(&[Double::default()]);
    let discrete = Double {
        discrete: true,
        ..Double::default()
    };
    let real = apart(&[discrete, discrete, Double::default()]);
    let mut logical = vec![real[0].clone(); 2];
    (logical[0].logical, logical[1].logical) = (Some(0), Some(1));
    logical.push(real[2].clone());
    for limited in &mut logical[..2] {
        limited.info.total = 1 << 30;
    }
    let count = model().1.layers();
    let layout = |halves: [usize; 2], output, lookup| Layout {
        layers: (0..count).map(|layer| halves[2 * layer / count]).collect(),
        output,
        lookup,
        experts: None,
    };
    for layout in [
        layout([0, 1], 1, 2),
        layout([2, 0], 1, 2),
        layout([1, 0], 1, 0),
        layout([2, 2], 0, 2),
    ] {
        for targets in [&real, &logical] {
            let (file, model, settings) = model();
            let plan = plan_on(&file, &model, &settings, targets, &layout).unwrap();
            let mut engine = open((file, model, settings), plan);
            assert!(logits_of(&mut engine) == whole, "{layout:?}");
            let planned: Vec<_> = engine
                .plan()
                .devices
                .iter()
                .map(|d| (d.allocated(), d.allocated()))
                .collect();
            assert_eq!(engine.allocated(), planned);
        }
    }
}

#[test]
fn the_first_device_takes_the_next_step_while_the_last_is_not_waited_for() {
    let discrete = Double {
        discrete: true,
        ..Double::default()
    };
    let mut targets = apart(&[discrete, discrete]);
    let [first, last] = [WATCHED, WATCHED + 1];
    (targets[0].info.id, targets[1].info.id) = (first, last);
    let (file, model, settings) = model();
    let count = model.layers();
    let layout = Layout {
        layers: (0..count).map(|layer| 2 * layer / count).collect(),
        output: 1,
        ..Layout::whole(count)
    };
    let plan = plan_on(&file, &model, &settings, &targets, &layout).unwrap();
    let mut engine = open((file, model, settings), plan);
    SEEN.lock().unwrap().clear();
    engine.evaluate(&[(0, 2)], &[5, 6], &[]).unwrap();
    engine.evaluate(&[(0, 2)], &[7, 8], &[]).unwrap();
    engine.evaluate(&[(0, 1)], &[9], &[0]).unwrap();
    let of_last: Vec<&str> = SEEN
        .lock()
        .unwrap()
        .iter()
        .filter(|(id, _)| *id == last)
        .map(|(_, what)| *what)
        .collect();
    assert_eq!(of_last, ["run", "run", "run", "wait"]);
    let of_first = SEEN
        .lock()
        .unwrap()
        .iter()
        .filter(|(id, what)| *id == first && *what == "run")
        .count();
    assert_eq!(of_first, 3);
}

#[test]
fn experts_may_be_on_another_device_than_their_layer() {
    let whole = logits_of(&mut engine_of(mixture(), &[Double::default()]));
    let discrete = Double {
        discrete: true,
        ..Double::default()
    };
    for count in [1, 2] {
        let (file, model, settings) = mixture();
        let layout = Layout {
            experts: Some((count, 1)),
            lookup: 1,
            ..Layout::whole(2)
        };
        let plan = plan_on(
            &file,
            &model,
            &settings,
            &apart(&[discrete, Double::default()]),
            &layout,
        )
        .unwrap();
        // the look-up, then for each of them the host's part and what follows
        assert_eq!(plan.segments.len(), 2 + 2 * count);
        assert!(logits_of(&mut open((file, model, settings), plan)) == whole, "{count}");
    }
}

#[test]
fn a_device_with_a_limit_gives_no_more() {
    let (file, model, settings) = model();
    let mut targets = apart(&[Double {
        discrete: true,
        ..Double::default()
    }]);
    let plan = plan_for(&file, &model, &settings, &targets).unwrap();
    let needed = plan.devices[0].allocated();
    targets[0].logical = Some(0);
    for (limit, opens) in [(needed, true), (needed - 1, false)] {
        targets[0].info.total = limit;
        let plan = plan_for(&file, &model, &settings, &targets).unwrap();
        let services = HostServices {
            log: no_log,
            level: 0,
            reserved: 0,
            reserved2: [0; 6],
        };
        let opened = Engine::open(file.clone(), &model, &settings, plan, services, &Meter::default());
        assert_eq!(opened.is_ok(), opens, "{limit}");
    }
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
    assert_eq!(engine.planned(), planned);
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
