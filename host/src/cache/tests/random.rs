//! Random histories, and the number of pages that they need.

use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// Runs `operations` random operations and checks everything that is visible after each.
fn run(config: CacheConfig, operations: usize, seed: u64) -> usize {
    let mut world = World::new(config.clone(), seed);
    let mut random = Random(!seed);
    let mut refused = 0;
    let mut next_value = 0;
    for _ in 0..operations {
        let sequence = random.below(config.sequences as u64) as usize;
        let length = random.below(u64::from(world.cache.length(sequence)) + 1) as u32;
        match random.below(10) {
            0 => {
                world.cache.release(sequence).unwrap();
                world.flat[sequence].clear();
                world.check();
            }
            1 | 2 => cut(&mut world, sequence, length),
            3 | 4 => fork(
                &mut world,
                sequence,
                random.below(config.sequences as u64) as usize,
                length,
            ),
            _ => refused += usize::from(!step(&mut world, &mut random, &mut next_value)),
        }
    }
    for sequence in 0..config.sequences {
        world.cache.release(sequence).unwrap();
    }
    for group in 0..config.groups.len() {
        assert_eq!(world.cache.free_pages(group), world.cache.pages(group));
    }
    refused
}

fn cut(world: &mut World, sequence: usize, wanted: u32) {
    let resumable = world.cache.resumable(sequence, wanted);
    let longest = (0..=wanted).rev().find(|&n| world.can_resume(sequence, n)).unwrap();
    assert_eq!(resumable, longest);
    if resumable < wanted {
        let before = world.state();
        assert!(matches!(
            world.truncate(sequence, wanted),
            Err(CacheError::NotResumable { .. })
        ));
        assert_eq!(world.state(), before);
    }
    world.truncate(sequence, resumable).unwrap();
}

fn fork(world: &mut World, from: usize, to: usize, wanted: u32) {
    let length = world.cache.resumable(from, wanted);
    match world.fork(from, to, length) {
        Ok(()) => assert_ne!(from, to),
        Err(error) => assert_eq!((error, from), (CacheError::SameSequence(from), to)),
    }
}

fn step(world: &mut World, random: &mut Random, next_value: &mut u32) -> bool {
    let config = world.cache.config.clone();
    let mut left = config.step_tokens;
    let mut columns = Vec::new();
    for sequence in 0..config.sequences {
        let most = left.min(config.context - world.cache.length(sequence));
        let count = if random.below(2) == 0 {
            most.min(1)
        } else {
            random.below(u64::from(most) + 1) as u32
        };
        left -= count;
        columns.push((sequence, (*next_value..*next_value + count).collect::<Vec<u32>>()));
        *next_value += count;
    }
    let columns: Vec<(usize, &[u32])> = columns
        .iter()
        .map(|(sequence, values)| (*sequence, &values[..]))
        .collect();
    world.ahead = random.below(u64::from(config.ahead) + 1) as u32;
    let before = world.state();
    match world.try_store(&columns) {
        Ok(()) => {
            for (g, group) in config.groups.iter().enumerate() {
                world.seen(g, group.window);
                assert_eq!(world.tables[g], world.cache.table(g));
            }
            true
        }
        Err(error) => {
            assert!(matches!(error, CacheError::NoPages { .. }), "{error}");
            assert_eq!(world.state(), before);
            false
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_full_cache_shows_every_visible_token_and_never_lacks_a_page(
        seed: u64,
        sequences in 1usize..6,
        context in 1u32..200,
        step_tokens in 1u32..50,
        windows in prop::collection::vec(prop::option::of(1u32..70), 1..4),
        ahead in 0u32..9,
    ) {
        let config = CacheConfig::full(16, sequences, context, step_tokens, &windows).with_ahead(ahead);
        prop_assert_eq!(run(config, 120, seed), 0);
    }

    #[test]
    fn a_step_that_lacks_pages_changes_nothing(
        seed: u64,
        pages in prop::collection::vec(4u32..30, 3),
        window in 1u32..70,
    ) {
        let windows = [None, Some(window), None];
        let mut config = CacheConfig::full(16, 5, 150, 40, &windows);
        for (group, pages) in config.groups.iter_mut().zip(pages) {
            group.pages = pages;
        }
        run(config, 120, seed);
    }
}

#[test]
fn scarce_pages_are_refused_in_the_random_histories() {
    let mut config = CacheConfig::full(16, 5, 150, 40, &[Some(20), None]);
    config.groups[1].pages = 12;
    assert!(run(config, 200, 1) > 5);
}

/// Pages with a token among the newest `keep` of n, or among `ahead` more.
fn pages_held(n: u32, keep: u32, ahead: u32, page_tokens: u32) -> u32 {
    let mut pages: Vec<u32> = (n.saturating_sub(keep)..n + ahead)
        .map(|token| token / page_tokens)
        .collect();
    pages.dedup();
    pages.len() as u32
}

#[test]
fn pages_needed_is_the_most_that_any_length_holds() {
    for page_tokens in [1, 2, 4, 8] {
        for (window, step_tokens) in (1..20).flat_map(|w| (1..12).map(move |t| (w, t))) {
            for (context, ahead) in (1..48).zip([0, 1, 5].into_iter().cycle()) {
                let config = CacheConfig::full(page_tokens, 3, context, step_tokens, &[]).with_ahead(ahead);
                let held = |keep, n| pages_held(n, keep, ahead.min(context - n), page_tokens);
                let most = |keep| (0..=context).map(|n| held(keep, n)).max().unwrap();
                assert_eq!(config.pages_needed(Some(window)), 3 * most(window + step_tokens - 1));
                assert_eq!(config.pages_needed(None), 3 * most(u32::MAX));
            }
        }
    }
}

#[test]
fn a_sequence_holds_at_its_worst_exactly_the_pages_needed() {
    for (window, step_tokens) in (1..40).flat_map(|w| [1, 2, 16, 17].map(|t| (w, t))) {
        let config = CacheConfig::full(16, 1, 120, step_tokens, &[Some(window)]);
        let mut world = World::new(config, 7);
        let mut least_free = world.cache.free_pages(0);
        for token in 0..120 {
            world.store(&[(0, &[token])]);
            least_free = least_free.min(world.cache.free_pages(0));
        }
        assert_eq!(least_free, 0, "window {window}, {step_tokens} tokens a step");
    }
}

#[rstest]
#[case(CacheConfig::full(16, 1 << 40, 1 << 24, 512, &[None]))]
#[case(CacheConfig::full(16, 1 << 12, 1 << 24, 512, &[Some(u32::MAX)]))]
#[case(CacheConfig::full(16, usize::MAX, 1 << 24, 512, &[]))]
#[case(CacheConfig::full(16, 1, u32::MAX, 512, &[None]))]
#[case(CacheConfig::full(0, 1, 512, 512, &[None, Some(4)]))]
#[case(CacheConfig::full(16, 0, 0, 0, &[None, Some(0)]))]
#[case(CacheConfig::full(16, 1, 512, u32::MAX, &[Some(u32::MAX)]))]
fn numbers_beyond_measure_are_refused_not_wrapped(#[case] config: CacheConfig) {
    assert!(matches!(Cache::new(config), Err(CacheError::Config { .. })));
}
