//! A model answers the same, wherever its layers are.

use super::*;

/// The bits of the logits of a prompt in steps of up to 8 tokens, and of 8 tokens that each is the likeliest after those
/// before it.
fn answer(serving: &Serving, placement: &Placement, prompt: &[u32]) -> Vec<Vec<u32>> {
    let mut engine = engine(serving, placement);
    let mut all = Vec::new();
    for step in prompt.chunks(8) {
        // the steps of a prompt but the last want nothing, and so may still run when the next begins
        engine.evaluate(&[(0, step.len() as u32)], step, &[]).unwrap();
    }
    let mut token = prompt[0];
    for _ in 0..8 {
        engine.evaluate(&[(0, 1)], &[token], &[0]).unwrap();
        let logits = engine.logits(0);
        let best = (0..logits.len())
            .max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
            .unwrap();
        token = best as u32;
        all.push(logits.iter().map(|logit| logit.to_bits()).collect());
    }
    all
}

fn at_most_8(wishes: Wishes) -> Wishes {
    Wishes {
        batch: Some(8),
        ..wishes
    }
}

#[test]
fn one_device_or_several_and_any_number_of_layers_give_the_same_answer() {
    for model in MODELS {
        let serving = serving(model);
        let fixture = Fixture::named(model);
        let prompt: Vec<u32> = fixture.prompt().into_iter().take(40).collect();
        let alone = placed(&serving, &[64 * MIB], &at_most_8(wishes(128)), 1).unwrap();
        let expected = answer(&serving, &alone, &prompt);
        for devices in 2..=4 {
            let wishes = Wishes {
                spread: true,
                ..at_most_8(wishes(128))
            };
            let placement = placed(&serving, &vec![64 * MIB; devices], &wishes, 1).unwrap();
            let used = (0..devices).filter(|&device| placement.layers_on(device) > 0).count();
            assert!(used == devices || serving.model.model.layers() < devices, "{model}");
            assert!(
                answer(&serving, &placement, &prompt) == expected,
                "{model} on {devices} devices"
            );
        }
        for layers in 0..=serving.model.model.layers() as u32 + 1 {
            let wishes = Wishes {
                layers: Some(layers),
                spread: true,
                ..at_most_8(wishes(128))
            };
            let placement = placed(&serving, &[64 * MIB; 2], &wishes, 1).unwrap();
            assert_eq!(placement.layers_on_devices(), layers as usize, "{model}");
            assert!(
                answer(&serving, &placement, &prompt) == expected,
                "{model} with {layers} layers on devices"
            );
        }
    }
}

#[test]
fn experts_on_the_host_give_the_same_answer() {
    for model in ["gptoss-q8_0", "families/mixtral-f16"] {
        let serving = serving(model);
        let prompt = Fixture::named(model).prompt();
        let at = |experts| {
            let wishes = Wishes {
                experts: Some(experts),
                ..at_most_8(wishes(128))
            };
            let placement = placed(&serving, &[64 * MIB], &wishes, 1).unwrap();
            answer(&serving, &placement, &prompt[..24])
        };
        let expected = at(0);
        for experts in 1..=serving.model.model.layers() as u32 {
            assert!(
                at(experts) == expected,
                "{model} with experts of {experts} layers on the host"
            );
        }
    }
}
