//! One behaviour a test.

use rstest::rstest;

use super::*;

fn world(sequences: usize, step_tokens: u32, windows: &[Option<u32>]) -> World {
    World::new(CacheConfig::full(16, sequences, 64, step_tokens, windows), 3)
}

fn values(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn a_token_sees_the_tokens_before_it_and_itself() {
    let mut world = world(1, 16, &[None]);
    assert_eq!(world.store(&[(0, &[1, 2, 3])]), [vec![1], vec![1, 2], vec![1, 2, 3]]);
    assert_eq!(world.store(&[(0, &[4])]), [[1, 2, 3, 4]]);
    assert_eq!(world.step.positions, [3]);
    assert_eq!(world.step.starts, [0, 1]);
}

#[test]
fn a_window_of_two_sees_one_token_back() {
    let mut world = world(1, 16, &[Some(2)]);
    assert_eq!(
        world.store(&[(0, &[1, 2, 3, 4])]),
        [vec![1], vec![1, 2], vec![2, 3], vec![3, 4]]
    );
    assert_eq!(world.store(&[(0, &[5, 6])]), [[4, 5], [5, 6]]);
}

#[test]
fn a_window_survives_steps_of_other_sequences() {
    let mut world = world(2, 2, &[Some(2)]);
    assert_eq!(world.store(&[(0, &[1, 2])]), [vec![1], vec![1, 2]]);
    assert_eq!(world.store(&[(0, &[3, 4])]), [[2, 3], [3, 4]]);
    assert_eq!(world.store(&[(1, &[5, 6])]), [vec![5], vec![5, 6]]);
    assert_eq!(world.store(&[(1, &[7, 8])]), [[6, 7], [7, 8]]);
    assert_eq!(world.store(&[(0, &[9, 10])]), [[4, 9], [9, 10]]);
}

#[test]
fn pages_that_slid_out_of_the_window_are_used_again() {
    let mut world = world(1, 1, &[Some(4), None]);
    assert_eq!((world.cache.pages(0), world.cache.pages(1)), (2, 4));
    for token in 0..64 {
        world.store(&[(0, &[token])]);
    }
    assert_eq!(world.cache.table(0)[..3], [NONE; 3]);
    assert_eq!((world.cache.free_pages(0), world.cache.free_pages(1)), (1, 0));
}

#[test]
fn sequences_do_not_see_each_other() {
    let mut world = world(3, 16, &[None]);
    assert_eq!(
        world.store(&[(0, &[1, 2]), (2, &[3, 4])]),
        [vec![1], vec![1, 2], vec![3], vec![3, 4]]
    );
    assert_eq!(world.step.starts, [0, 2, 2, 4]);
    assert_eq!(world.store(&[(0, &[5]), (2, &[6])]), [[1, 2, 5], [3, 4, 6]]);
    assert_eq!(world.step.positions, [2, 2]);
}

#[test]
fn a_cut_sequence_goes_on_at_the_cut() {
    let mut world = world(2, 16, &[None, Some(3)]);
    world.store(&[(0, &[1, 2]), (1, &[3, 4])]);
    world.truncate(0, 1).unwrap();
    assert_eq!(world.store(&[(0, &[5]), (1, &[6])]), [vec![1, 5], vec![3, 4, 6]]);
}

#[test]
fn what_is_cut_from_the_middle_is_evaluated_again() {
    let mut world = world(1, 64, &[None]);
    world.store(&[(0, &values(0..40))]);
    world.truncate(0, 2).unwrap();
    assert_eq!(world.cache.free_pages(0), 3);
    assert_eq!(world.store(&[(0, &[38, 39])])[1], [0, 1, 38, 39]);
    assert_eq!(world.step.positions, [2, 3]);
}

#[test]
fn a_fork_shares_pages_until_one_side_writes() {
    let mut world = world(2, 64, &[None]);
    world.store(&[(0, &values(0..40))]);
    world.fork(0, 1, 40).unwrap();
    assert_eq!(world.cache.free_pages(0), 5);
    let seen = world.store(&[(0, &[100]), (1, &[200])]);
    assert_eq!((seen[0][40], seen[1][40]), (100, 200));
    assert_eq!(world.step.copies.len(), 1, "the second writer owns the page by then");
    assert_eq!(world.cache.free_pages(0), 4);
    world.store(&[(0, &[101]), (1, &[201])]);
    assert!(world.step.copies.is_empty());
}

#[test]
fn a_fork_at_a_page_boundary_copies_nothing() {
    let mut world = world(2, 64, &[None]);
    world.store(&[(0, &values(0..40))]);
    world.fork(0, 1, 32).unwrap();
    assert_eq!(world.store(&[(1, &[7])])[0][31..], [31, 7]);
    assert!(world.step.copies.is_empty());
}

#[test]
fn a_fork_outlives_its_origin_and_replaces_what_was_there() {
    let mut world = world(2, 64, &[None, Some(8)]);
    world.store(&[(0, &values(0..20)), (1, &values(50..90))]);
    world.fork(0, 1, 18).unwrap();
    world.truncate(0, 0).unwrap();
    assert_eq!(world.store(&[(1, &[7])])[0][16..], [16, 17, 7]);
    assert!(world.step.copies.is_empty());
}

#[test]
fn the_first_upload_and_the_words_that_follow_agree() {
    let mut world = world(2, 64, &[None]);
    world.store(&[(0, &values(0..20))]);
    world.fork(0, 1, 20).unwrap();
    world.truncate(0, 3).unwrap();
    world.truncate(0, 0).unwrap();
    world.store(&[(1, &[7])]);
    assert_eq!(world.tables[0], world.cache.table(0));
    assert_eq!(
        world.step.words.len(),
        4,
        "each word is written once, whatever happened to it"
    );
}

/// Window 4, pages of 16, steps of 1: at 35 tokens the block 0–15 has gone, the block from 16 on is there.
#[rstest]
#[case::the_end(35, 35)]
#[case::more_than_there_is(50, 35)]
#[case::the_last_length_with_its_window(19, 19)]
#[case::a_window_that_reaches_back_too_far(18, 0)]
#[case::long_gone(5, 0)]
fn evaluation_resumes_where_the_windows_are_whole(#[case] wanted: u32, #[case] length: u32) {
    let mut world = world(1, 1, &[None, Some(4)]);
    for token in 0..35 {
        world.store(&[(0, &[token])]);
    }
    assert_eq!(world.cache.resumable(0, wanted), length);
    world.truncate(0, length).unwrap();
    world.store(&[(0, &[99])]);
}

#[test]
fn before_anything_slid_out_every_length_resumes() {
    let mut world = world(1, 16, &[Some(4)]);
    world.store(&[(0, &values(0..15))]);
    assert!((0..=15).all(|length| world.cache.resumable(0, length) == length));
}

/// The surplus of a window: T − 1 tokens more than a step of one token needs.
#[test]
fn a_sequence_can_be_cut_by_a_whole_step() {
    let mut world = world(1, 9, &[Some(5)]);
    for token in 0..64 {
        world.store(&[(0, &[token])]);
        let length = world.cache.length(0);
        let cut = length.saturating_sub(9);
        assert_eq!(world.cache.resumable(0, cut), cut);
    }
}

/// Tokens one by one, and the same tokens with guesses after each that turn out right for `right` tokens.
#[rstest]
fn guesses_leave_no_trace(#[values(0, 1, 3)] right: u32, #[values(1, 5, 20)] window: u32) {
    let config = CacheConfig::full(16, 1, 100, 4, &[Some(window), None]);
    let (mut plain, mut guessing) = (World::new(config.clone(), 3), World::new(config.with_ahead(3), 3));
    guessing.ahead = 3;
    for start in (0..96).step_by(right as usize + 1) {
        for token in start..=start + right {
            plain.store(&[(0, &[token])]);
        }
        let guesses = values(start..start + 4);
        guessing.store(&[(0, &guesses[..guesses.len().min(100 - start as usize)])]);
        guessing.truncate(0, start + 1 + right).unwrap();
        for length in 0..=start + 1 + right {
            let resumable = [&plain, &guessing].map(|world| world.cache.resumable(0, length));
            assert_eq!(resumable[0], resumable[1], "{length} of {} tokens", start + 1 + right);
        }
    }
}

#[test]
fn a_refused_step_says_what_is_lacking_and_leaves_all_as_it_was() {
    let mut config = CacheConfig::full(16, 2, 64, 64, &[Some(3), None]);
    config.groups[1].pages = 3;
    let mut world = World::new(config, 0);
    world.store(&[(0, &values(0..30))]);
    let before = world.state();
    let refused = world.try_store(&[(0, &[1, 2, 3]), (1, &[4])]);
    assert_eq!(
        refused,
        Err(CacheError::NoPages {
            group: 1,
            free: 1,
            pages: 3
        })
    );
    assert_eq!(world.state(), before);
    world.store(&[(0, &[1, 2, 3])]);
}

#[test]
fn impossible_requests_are_refused() {
    let mut cache = Cache::new(CacheConfig::full(16, 2, 20, 8, &[None])).unwrap();
    let mut step = Step::default();
    let mut begin = |columns: &[(usize, u32)]| cache.begin(columns, &mut step);
    assert_eq!(
        begin(&[(2, 1)]),
        Err(CacheError::Sequence {
            sequence: 2,
            sequences: 2
        })
    );
    assert_eq!(
        begin(&[(1, 1), (0, 1)]),
        Err(CacheError::Order { sequence: 0, before: 1 })
    );
    assert_eq!(
        begin(&[(0, 1), (0, 1)]),
        Err(CacheError::Order { sequence: 0, before: 0 })
    );
    assert_eq!(
        begin(&[(0, 8), (1, 1)]),
        Err(CacheError::StepTooLarge {
            tokens: 9,
            step_tokens: 8
        })
    );
    assert_eq!((begin(&[(0, 8)]), begin(&[(0, 8)])), (Ok(()), Ok(())));
    let full = CacheError::ContextFull {
        sequence: 0,
        length: 16,
        count: 5,
        context: 20,
    };
    assert_eq!(begin(&[(0, 5)]), Err(full));
    assert_eq!(cache.fork(0, 0, 3), Err(CacheError::SameSequence(0)));
    let beyond = CacheError::NotResumable {
        sequence: 0,
        length: 16,
        asked: 17,
        resumable: 16,
    };
    assert_eq!(cache.truncate(0, 17), Err(beyond));
    assert_eq!(
        cache.fork(0, 5, 3),
        Err(CacheError::Sequence {
            sequence: 5,
            sequences: 2
        })
    );
}

#[rstest]
#[case(8, 1, 1, Some(1))]
#[case(48, 1, 1, None)]
#[case(512, 1, 1, None)]
#[case(16, 0, 1, None)]
#[case(16, 1, 0, None)]
#[case(16, 1, 1, Some(0))]
fn impossible_dimensions_are_refused(
    #[case] page_tokens: u32,
    #[case] sequences: usize,
    #[case] step_tokens: u32,
    #[case] window: Option<u32>,
) {
    let groups = vec![GroupConfig { window, pages: 1 }];
    let config = CacheConfig {
        page_tokens,
        sequences,
        context: 64,
        step_tokens,
        ahead: 0,
        groups,
    };
    assert!(matches!(Cache::new(config), Err(CacheError::Config { .. })));
}
