//! Where models in known shapes go. Nothing of them but the header is there.

use rstest::rstest;

use super::*;

/// Cards of 11441 MiB, of which 128 MiB are their driver's.
const CARD: u64 = (11441 - 128) * MIB;

fn shape(name: &str) -> Serving {
    let folder = tempfile::tempdir().unwrap();
    let quant = if name.starts_with("gptoss") { "mxfp4" } else { "q4_k_m" };
    // the file stays mapped when its folder is gone
    sparse(folder.path(), name, &["--quant", quant])
}

fn used(placement: &Placement) -> usize {
    (0..placement.devices)
        .filter(|&device| placement.layers_on(device) > 0)
        .count()
}

#[rstest]
#[case("gemma3-4b", 8192, 1)]
#[case("gemma3-12b", 8192, 1)]
#[case("gemma3-27b", 8192, 2)]
#[case("qwen2-1.5b", 4096, 1)]
#[case("qwen2-7b", 4096, 1)]
#[case("qwen2-14b", 4096, 1)]
#[case("qwen2-32b", 4096, 2)]
#[case("gptoss-20b", 16384, 2)]
#[case("gptoss-20b", 131072, 2)]
fn all_layers_fit_the_fewest_cards_at_batch_512(#[case] name: &str, #[case] context: u32, #[case] cards: usize) {
    let usual = Settings {
        page_tokens: 64,
        ..usual(1)
    };
    let serving = shape(name);
    let model = &serving.model;
    let ground = ground(&serving, &[CARD; 4]);
    let placement = place(&model.file, &model.model, &ground, &wishes(context), &usual).unwrap();
    assert_eq!(placement.layers_on_devices(), placement.layers_total());
    assert_eq!((used(&placement), placement.settings.batch), (cards, 512));
    let loads: Vec<u64> = placement
        .plan
        .devices
        .iter()
        .take(cards)
        .map(|d| d.allocated())
        .collect();
    let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
    assert!(most - least < most / 10, "balanced to a layer: {loads:?}");
}

#[test]
fn memory_does_not_grow_with_context_times_batch() {
    let serving = shape("gemma3-4b");
    let compute = |context, batch| {
        let wishes = Wishes {
            batch: Some(batch),
            ..wishes(context)
        };
        let of = placed(&serving, &[CARD], &wishes, 1).unwrap().plan.devices[0].purposes();
        of.compute + of.workspace
    };
    // block tables and positions grow with the context, by a few bytes a page
    let (short, long) = (compute(4096, 512), compute(65536, 512));
    assert!(long - short < MIB, "{short} bytes for 4096 tokens, {long} for 65536");
}

#[rstest]
#[case("gemma3-12b")]
#[case("gptoss-20b")]
#[case("gemma3n-e4b")]
fn memory_grows_with_each_layer_and_the_output_projection_comes_first(#[case] name: &str) {
    let serving = shape(name);
    let shares_caches = name.starts_with("gemma3n");
    let mut before = 0;
    for layers in 0..=serving.model.model.layers() as u32 + 1 {
        let wishes = Wishes {
            layers: Some(layers),
            ..wishes(4096)
        };
        let placement = placed(&serving, &[CARD; 4], &wishes, 1).unwrap();
        let now = on_devices(&placement);
        assert!(
            now > before || layers == 0 && now == 0,
            "{layers} layers: {before} then {now}"
        );
        before = now;
        assert_eq!(placement.layers_on_devices(), layers as usize);
        assert_eq!(Some(placement.layout.output) == placement.host, layers == 0);
        if !shares_caches {
            let lookup_apart = placement.layout.lookup != placement.layout.layers[0];
            let runs = used(&placement) + usize::from(layers <= serving.model.model.layers() as u32 || lookup_apart);
            assert_eq!(placement.plan.segments.len(), runs, "one boundary a device");
        }
    }
}

#[test]
fn layers_that_share_caches_stay_on_one_device() {
    let serving = shape("gemma3n-e2b");
    let wishes = Wishes {
        spread: true,
        ..wishes(4096)
    };
    let placement = placed(&serving, &[CARD; 3], &wishes, 1).unwrap();
    assert_eq!(placement.plan.segments.len(), 4, "the host and each device once");
}

#[test]
fn a_smaller_batch_is_taken_where_that_saves_a_device() {
    let serving = shape("gemma3-4b");
    let at = |batch: Option<u32>, sizes: &[u64]| placed(&serving, sizes, &Wishes { batch, ..wishes(4096) }, 1);
    let needs = |batch| on_devices(&at(Some(batch), &[CARD]).unwrap());
    let (large, small) = (needs(512), needs(64));
    assert!(small + 4096 < large);
    let between = (large + small) / 2;
    let saved = at(None, &[between; 2]).unwrap();
    assert_eq!(used(&saved), 1);
    assert!((64..512).contains(&saved.settings.batch), "{}", saved.settings.batch);
    let lost = &saved.alternatives[0];
    assert!(
        lost.what.ends_with("batch 512") && lost.why.contains("needed"),
        "{lost:?}"
    );
    assert_eq!(
        used(&at(Some(512), &[between; 2]).unwrap()),
        2,
        "an explicit batch is obeyed"
    );
    assert_eq!(used(&at(None, &[small - 1; 2]).unwrap()), 2);
}

#[test]
fn the_longest_context_fits_and_a_page_more_does_not() {
    let serving = shape("gemma3-12b");
    let mut longest = Vec::new();
    for cards in [1, 2] {
        let max = Wishes {
            context: Some(ContextWish::Max),
            ..Wishes::default()
        };
        let placement = placed(&serving, &vec![CARD; cards], &max, 1).unwrap();
        let context = placement.settings.context;
        longest.push(context);
        assert_eq!(placement.layers_on_devices(), placement.layers_total());
        if context < serving.model.model.context() {
            let more = placed(
                &serving,
                &vec![CARD; cards],
                &Wishes {
                    batch: Some(512),
                    ..wishes(context + 16)
                },
                1,
            );
            assert!(more.unwrap().layers_on_devices() < placement.layers_total());
        }
    }
    assert!(longest[0] > 16384 && longest[1] > 2 * longest[0], "{longest:?}");
}

#[test]
fn experts_stay_on_the_host_where_that_is_less_to_read_than_whole_layers() {
    let serving = shape("gptoss-120b");
    let placement = placed(&serving, &[CARD; 2], &wishes(8192), 1).unwrap();
    let (count, host) = placement.layout.experts.expect("experts on the host");
    assert_eq!(placement.layers_on_devices(), placement.layers_total());
    assert!(count > 20 && Some(host) == placement.host);
    let fewer = Wishes {
        experts: Some(count as u32 - 1),
        ..wishes(8192)
    };
    let fewer = placed(&serving, &[CARD; 2], &fewer, 1).unwrap();
    assert!(fewer.layers_on_devices() < fewer.layers_total(), "no fewer fit");
}

#[test]
fn devices_of_different_sizes_are_filled_alike() {
    let serving = shape("qwen2-14b");
    let placement = placed(&serving, &[8192 * MIB, 4096 * MIB], &wishes(4096), 1).unwrap();
    let shares: Vec<f64> = placement
        .plan
        .devices
        .iter()
        .take(2)
        .map(|d| d.allocated() as f64 / d.target.info.free as f64)
        .collect();
    assert!((shares[0] - shares[1]).abs() < 0.06, "{shares:?}");
    // one that is large enough is enough
    let placement = placed(&serving, &[4096 * MIB, 12288 * MIB], &wishes(4096), 1).unwrap();
    assert_eq!((placement.layers_on(0), used(&placement)), (0, 1));
}

#[test]
fn what_the_documentation_says_of_known_shapes_is_what_plans_say() {
    let printed = Command::new(env!("CARGO_BIN_EXE_memory-table"))
        .arg(tests::host())
        .arg(env!("CARGO_BIN_EXE_make-model"))
        .output()
        .unwrap();
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let documented = include_str!("../../docs/memory.md");
    let tables = documented.lines().filter(|line| line.starts_with('|'));
    let printed = String::from_utf8(printed.stdout).unwrap();
    let found: Vec<&str> = printed.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(tables.collect::<Vec<_>>(), found);
}
