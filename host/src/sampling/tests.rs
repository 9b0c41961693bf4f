use proptest::prelude::*;
use rstest::rstest;

use super::*;

/// Nothing but a softmax at temperature 1.
fn plain() -> SamplingOptions {
    SamplingOptions {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        seed: Some(1),
        ..Default::default()
    }
}

fn sampler(options: SamplingOptions) -> Sampler {
    Sampler::new(options).unwrap()
}

/// Logits whose softmax at temperature 1 is 0.5, 0.25, 0.15, 0.1 for the tokens 2, 0, 3, 1.
fn logits() -> Vec<f32> {
    [0.25f32, 0.1, 0.5, 0.15].map(|p| p.ln() + 3.0).to_vec()
}

/// What is left of [`logits`], with probabilities rounded to thousandths.
fn left(options: SamplingOptions) -> Vec<(u32, u32)> {
    let mut sampler = sampler(options);
    sampler.filter(&logits());
    let thousandths = sampler
        .candidates
        .probabilities()
        .into_iter()
        .map(|p| (p * 1000.0).round() as u32);
    let mut left: Vec<(u32, u32)> = sampler.candidates.tokens().into_iter().zip(thousandths).collect();
    left.sort_by_key(|&(_, p)| std::cmp::Reverse(p));
    left
}

#[rstest]
#[case::everything(plain(), &[(2, 500), (0, 250), (3, 150), (1, 100)])]
#[case::temperature(SamplingOptions { temperature: 0.5, ..plain() }, &[(2, 725), (0, 181), (3, 65), (1, 29)])]
#[case::high_temperature(SamplingOptions { temperature: 1e9, ..plain() }, &[(0, 250), (1, 250), (2, 250), (3, 250)])]
#[case::tiny_temperature(SamplingOptions { temperature: 1e-30, ..plain() }, &[(2, 1000), (0, 0), (1, 0), (3, 0)])]
#[case::top_k(SamplingOptions { top_k: 2, ..plain() }, &[(2, 667), (0, 333)])]
#[case::top_k_above_all(SamplingOptions { top_k: 9, ..plain() }, &[(2, 500), (0, 250), (3, 150), (1, 100)])]
#[case::top_k_negative(SamplingOptions { top_k: -1, ..plain() }, &[(2, 500), (0, 250), (3, 150), (1, 100)])]
#[case::top_p(SamplingOptions { top_p: 0.6, ..plain() }, &[(2, 667), (0, 333)])]
#[case::top_p_zero_keeps_one(SamplingOptions { top_p: 0.0, ..plain() }, &[(2, 1000)])]
#[case::top_p_after_top_k(SamplingOptions { top_p: 0.6, top_k: 2, ..plain() }, &[(2, 1000)])]
#[case::top_p_after_temperature(SamplingOptions { top_p: 0.7, temperature: 0.5, ..plain() }, &[(2, 1000)])]
#[case::min_p(SamplingOptions { min_p: 0.29, ..plain() }, &[(2, 556), (0, 278), (3, 167)])]
#[case::min_p_one_keeps_the_best(SamplingOptions { min_p: 1.0, ..plain() }, &[(2, 1000)])]
// The entropy is 1.208; the surprises 0.693, 1.386, 1.897, 2.303 of 2, 0, 3, 1 differ from it by 0.515, 0.178, 0.689, 1.095.
#[case::typical_prefers_the_expected(SamplingOptions { typical_p: 0.2, ..plain() }, &[(0, 1000)])]
#[case::typical(SamplingOptions { typical_p: 0.5, ..plain() }, &[(2, 667), (0, 333)])]
#[case::typical_wider(SamplingOptions { typical_p: 0.8, ..plain() }, &[(2, 556), (0, 278), (3, 167)])]
#[case::top_p_after_typical(SamplingOptions { typical_p: 0.5, top_p: 0.6, ..plain() }, &[(2, 1000)])]
fn each_option_leaves_what_it_should(#[case] options: SamplingOptions, #[case] expected: &[(u32, u32)]) {
    assert_eq!(left(options), expected);
}

/// Chi-squared over the draws stays under the 99.99 % point for three degrees of freedom, 21.1.
#[rstest]
#[case(plain())]
#[case(SamplingOptions { temperature: 0.7, ..plain() })]
#[case(SamplingOptions { top_k: 3, ..plain() })]
#[case(SamplingOptions { top_p: 0.8, ..plain() })]
#[case(SamplingOptions { min_p: 0.25, ..plain() })]
#[case(SamplingOptions { typical_p: 0.6, top_p: 0.95, seed: Some(2), ..plain() })]
fn draws_follow_the_probabilities(#[case] options: SamplingOptions) {
    let mut sampler = sampler(options);
    let draws = 40_000;
    let mut counts = [0.0; 4];
    for _ in 0..draws {
        counts[sampler.sample(&mut logits()).unwrap() as usize] += 1.0;
    }
    let mut expected = [0.0; 4];
    for (token, p) in sampler
        .candidates
        .tokens()
        .into_iter()
        .zip(sampler.candidates.probabilities())
    {
        expected[token as usize] = f64::from(p) * f64::from(draws);
    }
    let kept = counts.iter().zip(&expected).filter(|&(_, &e)| e > 0.0);
    let chi_squared: f64 = kept.map(|(c, e)| (c - e) * (c - e) / e).sum();
    assert!(chi_squared < 21.1, "{counts:?} against {expected:?}");
    assert!(counts.iter().zip(&expected).all(|(&c, &e)| e > 0.0 || c == 0.0));
}

#[test]
fn temperature_zero_takes_the_lowest_of_the_largest() {
    let mut sampler = sampler(SamplingOptions {
        temperature: 0.0,
        ..Default::default()
    });
    assert_eq!(sampler.sample(&mut [1.0, 3.0, -2.0, 3.0]), Ok(1));
    assert_eq!(sampler.sample(&mut [-0.0, 0.0]), Ok(0));
}

#[test]
fn temperature_zero_finds_the_largest_wherever_it_stands() {
    let mut sampler = sampler(SamplingOptions {
        temperature: 0.0,
        ..Default::default()
    });
    for count in [1, 15, 16, 17, 40, 64, 100] {
        for place in 0..count {
            let mut logits = vec![f32::NEG_INFINITY; count];
            logits[place] = -7.5;
            logits[count - 1] = -7.5;
            assert_eq!(sampler.sample(&mut logits), Ok(place as u32), "of {count}");
        }
    }
}

#[test]
fn the_lower_token_wins_a_tie_at_the_edge_of_top_k() {
    let mut sampler = sampler(SamplingOptions { top_k: 3, ..plain() });
    sampler.filter(&[1.0, 2.0, 1.0, 1.0, 2.0]);
    assert_eq!(sampler.candidates.tokens(), [1, 4, 0]);
}

#[rstest]
#[case(0.0, 40)]
#[case(1.0, 40)]
#[case(1.0, 0)]
#[case(1.0, 1)]
fn forbidden_tokens_are_never_chosen(#[case] temperature: f32, #[case] top_k: i32) {
    let mut sampler = sampler(SamplingOptions {
        temperature,
        top_k,
        repeat_penalty: 1.5,
        ..plain()
    });
    sampler.accept(0);
    for _ in 0..500 {
        let mut logits = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, -1e30, 0.5];
        assert!([1, 4].contains(&sampler.sample(&mut logits).unwrap()));
    }
}

#[rstest]
fn what_cannot_be_compared_is_an_error(#[values(0.0, 1.0)] temperature: f32, #[values(0, 2)] top_k: i32) {
    let mut sampler = sampler(SamplingOptions {
        temperature,
        top_k,
        ..plain()
    });
    let error = sampler.sample(&mut [0.0, f32::NAN, 1.0]).unwrap_err();
    assert!(matches!(error, SamplingError::NotANumber { token: 1, .. }), "{error}");
    let error = sampler.sample(&mut [0.0, 1.0, f32::INFINITY]).unwrap_err();
    assert_eq!(
        error,
        SamplingError::NotANumber {
            token: 2,
            logit: f32::INFINITY
        }
    );
    let nothing = SamplingError::NothingAllowed { logits: 3 };
    assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY; 3]), Err(nothing));
    assert_eq!(
        sampler.sample(&mut []),
        Err(SamplingError::NothingAllowed { logits: 0 })
    );
}

#[rstest]
#[case::repeat(SamplingOptions { repeat_penalty: 2.0, ..plain() }, &[0, 1, 0], [1.0, -2.0, 0.5])]
#[case::presence(SamplingOptions { presence_penalty: 0.5, ..plain() }, &[0, 1, 0], [1.5, -1.5, 0.5])]
#[case::frequency(SamplingOptions { frequency_penalty: 0.25, ..plain() }, &[0, 1, 0], [1.5, -1.25, 0.5])]
#[case::negative_presence(SamplingOptions { presence_penalty: -1.0, ..plain() }, &[2], [2.0, -1.0, 1.5])]
#[case::the_factor_comes_first(
    SamplingOptions { repeat_penalty: 2.0, presence_penalty: 0.5, frequency_penalty: 0.25, ..plain() },
    &[0, 1, 0],
    [0.0, -2.75, 0.5]
)]
#[case::last_two(SamplingOptions { repeat_penalty: 2.0, repeat_last_n: 2, ..plain() }, &[0, 1, 2], [2.0, -2.0, 0.25])]
#[case::last_none(SamplingOptions { repeat_penalty: 2.0, repeat_last_n: 0, ..plain() }, &[0, 1], [2.0, -1.0, 0.5])]
#[case::unknown_token(SamplingOptions { repeat_penalty: 2.0, ..plain() }, &[7], [2.0, -1.0, 0.5])]
fn penalties_lower_the_logits_of_recent_tokens(
    #[case] options: SamplingOptions,
    #[case] history: &[u32],
    #[case] expected: [f32; 3],
) {
    let mut sampler = sampler(options);
    history.iter().for_each(|&token| sampler.accept(token));
    let mut logits = [2.0, -1.0, 0.5];
    sampler.sample(&mut logits).unwrap();
    assert_eq!(logits, expected);
}

#[test]
fn penalties_on_all_tokens_forget_none() {
    let options = SamplingOptions {
        frequency_penalty: 1.0,
        repeat_last_n: -1,
        temperature: 0.0,
        ..plain()
    };
    let mut sampler = sampler(options);
    (0..10_000).for_each(|_| sampler.accept(1));
    let mut logits = [0.0, 9_999.5];
    assert_eq!(sampler.sample(&mut logits), Ok(0));
}

fn tokens(sampler: &mut Sampler, count: usize) -> Vec<u32> {
    let logits: Vec<f32> = (0..100).map(|i| (i as f32 * 0.37).sin()).collect();
    (0..count)
        .map(|_| sampler.sample(&mut logits.clone()).unwrap())
        .collect()
}

/// Changing these numbers changes what a user's seed means: a break to announce.
#[test]
fn a_seed_means_the_same_in_every_version() {
    let mut sampler = sampler(SamplingOptions {
        seed: Some(42),
        ..Default::default()
    });
    assert_eq!(
        tokens(&mut sampler, 12),
        [73, 40, 74, 37, 88, 3, 54, 39, 70, 53, 20, 91]
    );
}

#[test]
fn a_clone_goes_on_as_the_original_would() {
    let options = SamplingOptions {
        repeat_penalty: 1.3,
        seed: None,
        ..Default::default()
    };
    let mut original = sampler(options.clone());
    tokens(&mut original, 5)
        .into_iter()
        .for_each(|token| original.accept(token));
    let mut clone = original.clone();
    assert_eq!(tokens(&mut original, 20), tokens(&mut clone, 20));
    let mut again = sampler(SamplingOptions {
        seed: Some(original.seed()),
        ..options.clone()
    });
    let mut other = sampler(options);
    assert_ne!(original.seed(), other.seed());
    assert_ne!(tokens(&mut again, 20), tokens(&mut other, 20));
}

#[rstest]
#[case("temperature", SamplingOptions { temperature: -0.1, ..plain() })]
#[case("temperature", SamplingOptions { temperature: f32::NAN, ..plain() })]
#[case("top_p", SamplingOptions { top_p: 1.5, ..plain() })]
#[case("min_p", SamplingOptions { min_p: -0.5, ..plain() })]
#[case("typical_p", SamplingOptions { typical_p: f32::NAN, ..plain() })]
#[case("repeat_penalty", SamplingOptions { repeat_penalty: 0.0, ..plain() })]
#[case("repeat_last_n", SamplingOptions { repeat_last_n: -2, ..plain() })]
#[case("presence_penalty", SamplingOptions { presence_penalty: f32::INFINITY, ..plain() })]
#[case("frequency_penalty", SamplingOptions { frequency_penalty: f32::NAN, ..plain() })]
fn an_option_out_of_range_is_named(#[case] name: &str, #[case] options: SamplingOptions) {
    let error = Sampler::new(options).unwrap_err().to_string();
    assert!(error.contains(&format!("option {name} is")), "{error}");
}

#[rstest]
#[case("{}", None)]
#[case(r#"{"seed": null}"#, None)]
#[case(r#"{"seed": -1}"#, None)]
#[case(r#"{"seed": 7}"#, Some(7))]
#[case(r#"{"seed": 18446744073709551615}"#, Some(u64::MAX))]
#[case(r#"{"seed": -2}"#, Some(u64::MAX - 1))]
fn serialized_options_may_be_partial(#[case] json: &str, #[case] seed: Option<u64>) {
    let options: SamplingOptions = serde_json::from_str(json).unwrap();
    assert_eq!(
        options,
        SamplingOptions {
            seed,
            ..Default::default()
        }
    );
    let again = serde_json::from_str(&serde_json::to_string(&options).unwrap()).unwrap();
    assert_eq!(options, again);
}

#[test]
fn a_seed_that_is_no_integer_is_refused() {
    let error = serde_json::from_str::<SamplingOptions>(r#"{"seed": "x"}"#)
        .unwrap_err()
        .to_string();
    assert!(error.contains("seed: expected an integer"), "{error}");
}

/// Tokens by descending logit, ties by ascending token.
fn ranked(logits: &[f32]) -> Vec<u32> {
    let mut ranked: Vec<u32> = (0..logits.len() as u32)
        .filter(|&t| logits[t as usize] > f32::NEG_INFINITY)
        .collect();
    ranked.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]));
    ranked
}

proptest! {
    #[test]
    fn top_k_is_the_front_of_a_full_sort(
        logits in prop::collection::vec(prop_oneof![1 => Just(f32::NEG_INFINITY), 9 => (1..40).prop_map(|i| i as f32)], 1..900),
        k in 1i32..100,
    ) {
        prop_assume!(logits.iter().any(|&logit| logit > f32::NEG_INFINITY));
        let mut sampler = sampler(SamplingOptions { top_k: k, temperature: 5.0, ..plain() });
        sampler.filter(&logits);
        let mut expected = ranked(&logits);
        expected.truncate(k as usize);
        if (k as usize) < logits.len() {
            prop_assert_eq!(sampler.candidates.tokens(), expected);
        } else {
            expected.sort_unstable();
            prop_assert_eq!(sampler.candidates.tokens(), expected);
        }
    }

    #[test]
    fn top_p_over_everything_is_the_shortest_front_of_a_full_sort(
        logits in prop::collection::vec((0..400).prop_map(|i| i as f32 / 100.0), 1..5000),
        top_p in 0.0f32..1.0,
    ) {
        let mut sampler = sampler(SamplingOptions { top_p, ..plain() });
        sampler.filter(&logits);
        let kept = sampler.candidates.tokens();
        let ranked = ranked(&logits);
        prop_assert_eq!(&kept[..], &ranked[..kept.len()]);
        let mass = |tokens: &[u32]| tokens.iter().map(|&t| f64::from(logits[t as usize]).exp()).sum::<f64>();
        let all = mass(&ranked);
        prop_assert!(kept.len() == ranked.len() || mass(&kept) / all > f64::from(top_p) - 1e-6);
        prop_assert!(mass(&kept[..kept.len() - 1]) / all <= f64::from(top_p) + 1e-6);
    }
}
