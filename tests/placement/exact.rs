//! What is planned is what is allocated, to the byte.

use host::placement::Placement;
use proptest::prelude::*;
use tests::Serving;

use super::*;

/// Allocates a plan and compares what was counted: by the host for each device, and by the plugin for all of them.
fn assert_exact(serving: &Serving, placement: &Placement) {
    let mut engine = engine(serving, placement);
    // a step of all that is served, so that whatever grows with use has grown
    let settings = &placement.settings;
    let tokens: Vec<u32> = (0..settings.batch.min(settings.context)).map(|i| i % 64).collect();
    engine.evaluate(&[(0, tokens.len() as u32)], &tokens, &[0]).unwrap();
    for (device, (now, peak)) in placement.plan.devices.iter().zip(engine.allocated()) {
        assert_eq!(
            (now, peak),
            (device.allocated(), device.allocated()),
            "{}: {settings:?}",
            device.target.label()
        );
    }
    let counted = engine.counters().unwrap();
    assert_eq!(counted.len(), 1, "all are parts of one device");
    for (planned, (_, counters)) in engine.planned().into_iter().zip(counted) {
        let of = |name: &str| counters.iter().find(|c| c.name.as_str() == name).unwrap().value;
        assert_eq!((of("allocated_bytes"), of("allocated_peak")), (planned, planned));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_fixture_on_devices_of_any_number_takes_what_was_planned(
        model in 0..MODELS.len(),
        devices in 1usize..5,
        context in 1u32..400,
        batch in prop::option::of(1u32..40),
        sequences in 1u32..9,
        layers in prop::option::of(0u32..8),
        spread in any::<bool>(),
    ) {
        let serving = serving(MODELS[model]);
        let wishes = Wishes { batch, layers, spread, ..wishes(context) };
        let placement = placed(&serving, &vec![64 * MIB; devices], &wishes, sequences).unwrap();
        assert_exact(&serving, &placement);
    }
}

#[test]
fn experts_that_stay_on_the_host_are_counted_there() {
    for model in ["gptoss-q8_0", "families/mixtral-f16"] {
        let serving = serving(model);
        for experts in 0..=serving.model.model.layers() as u32 {
            let wishes = Wishes {
                experts: Some(experts),
                ..wishes(100)
            };
            let placement = placed(&serving, &[64 * MIB; 2], &wishes, 1).unwrap();
            assert_exact(&serving, &placement);
        }
    }
}

/// Larger weights, and batches and contexts as they are in use.
#[test]
fn small_models_in_known_shapes_take_what_was_planned() {
    let folder = tempfile::tempdir().unwrap();
    for (shape, options, room) in [
        ("qwen2-1.5b", ["--layers", "3"], 256 * MIB),
        ("gemma3-1b", ["--layers", "7"], 300 * MIB),
    ] {
        let serving = sparse(folder.path(), shape, &options);
        for (devices, batch, context) in [(1, 512, 4096), (3, 64, 8192)] {
            let wishes = Wishes {
                batch: Some(batch),
                spread: true,
                ..wishes(context)
            };
            let placement = placed(&serving, &vec![room * 2; devices], &wishes, 2).unwrap();
            assert_eq!(placement.layers_on_devices(), placement.layers_total());
            assert_exact(&serving, &placement);
        }
    }
}
