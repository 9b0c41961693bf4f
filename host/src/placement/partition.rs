//! Dividing a run of layers among devices.

use std::ops::Range;

/// What is to be divided, and among whom.
#[derive(Clone, Debug)]
pub struct Division<'a> {
    /// Bytes of each layer that is to be placed.
    pub layers: &'a [u64],
    /// For each of them, whether it may be on another device than the one before it.
    pub cuts: &'a [bool],
    /// Bytes that go where the first layer goes.
    pub before: u64,
    /// Bytes that go to the last device.
    pub output: u64,
    /// Bytes that each device has.
    pub rooms: &'a [u64],
    /// Bytes that each of them needs for what is no layer's own.
    pub overheads: Vec<u64>,
}

impl Division<'_> {
    /// For each device the layers that it gets: contiguous runs in the order of the devices, so that the fullest of them is
    /// as empty as can be. `None` where they do not fit.
    pub fn balanced(&self) -> Option<Vec<Range<usize>>> {
        self.emptiest(false)
    }

    /// The same, where each device has a layer, or is the last. `None` also where that cannot be.
    pub fn spread(&self) -> Option<Vec<Range<usize>>> {
        let ranges = self.emptiest(true)?;
        let (_, others) = ranges.split_last()?;
        (!others.iter().any(Range::is_empty)).then_some(ranges)
    }

    fn emptiest(&self, spread: bool) -> Option<Vec<Range<usize>>> {
        let mut best = self.filled(1.0, spread)?;
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..40 {
            let middle = (low + high) / 2.0;
            match self.filled(middle, spread) {
                Some(ranges) => (best, high) = (ranges, middle),
                None => low = middle,
            }
        }
        Some(best)
    }

    /// Fills each device up to a share of its room, the last first; where they are to `spread`, with a layer left for each of
    /// those that come before.
    fn filled(&self, share: f64, spread: bool) -> Option<Vec<Range<usize>>> {
        let devices = self.rooms.len();
        let mut ranges = vec![0..0; devices];
        let mut end = self.layers.len();
        for device in (0..devices).rev() {
            let budget = (self.rooms[device] as f64 * share) as u64;
            let last = device + 1 == devices;
            let fixed = self.overheads[device] + if last { self.output } else { 0 };
            let Some(budget) = budget.checked_sub(fixed) else {
                if last {
                    return None;
                }
                ranges[device] = end..end;
                continue;
            };
            let start = self.start_of(end, budget, if spread { device } else { 0 });
            ranges[device] = start..end;
            end = start;
        }
        (end == 0).then_some(ranges)
    }

    /// The first layer, from `least` on, of the longest run that ends before `end` and fits.
    fn start_of(&self, end: usize, budget: u64, least: usize) -> usize {
        let (mut start, mut taken) = (end, 0);
        for layer in (least..end).rev() {
            taken += self.layers[layer] + if layer == 0 { self.before } else { 0 };
            if taken > budget {
                break;
            }
            if layer == 0 || self.cuts[layer] {
                start = layer;
            }
        }
        start
    }

    /// Bytes of what device `i` gets of these layers, without what it needs of its own.
    pub fn own(&self, ranges: &[Range<usize>], i: usize) -> u64 {
        let layers: u64 = self.layers[ranges[i].clone()].iter().sum();
        let before = if ranges[i].contains(&0) { self.before } else { 0 };
        let output = if i + 1 == ranges.len() { self.output } else { 0 };
        layers + before + output
    }

    /// All that is to be placed, and what devices need of their own.
    pub fn total(&self) -> u64 {
        let parts = self.layers.iter().chain(&self.overheads);
        self.before + self.output + parts.sum::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn divided(layers: &[u64], rooms: &[u64], output: u64) -> Option<Vec<Range<usize>>> {
        Division {
            layers,
            cuts: &vec![true; layers.len()],
            before: 0,
            output,
            rooms,
            overheads: vec![0; rooms.len()],
        }
        .balanced()
    }

    #[test]
    fn equal_devices_get_equal_shares() {
        assert_eq!(divided(&[10; 8], &[100, 100], 0), Some(vec![0..4, 4..8]));
    }

    #[test]
    fn the_last_has_less_layers_where_it_has_the_output() {
        assert_eq!(divided(&[10; 8], &[100, 100], 20), Some(vec![0..5, 5..8]));
    }

    #[test]
    fn a_larger_device_gets_more() {
        assert_eq!(divided(&[10; 9], &[200, 100], 0), Some(vec![0..6, 6..9]));
    }

    #[test]
    fn what_does_not_fit_is_not_divided() {
        assert_eq!(divided(&[60; 3], &[100, 100], 0), None);
        assert_eq!(divided(&[10], &[100, 5], 6), None);
    }

    #[test]
    fn where_all_devices_are_to_be_used_each_has_a_layer() {
        let division = |layers, rooms| Division {
            layers,
            cuts: &[true; 5],
            before: 0,
            output: 5,
            rooms,
            overheads: vec![0; rooms.len()],
        };
        let four = division(&[10; 5], &[100; 4]);
        assert_eq!(four.balanced(), Some(vec![0..0, 0..2, 2..4, 4..5]));
        assert_eq!(four.spread(), Some(vec![0..1, 1..2, 2..4, 4..5]));
        assert_eq!(
            division(&[10; 5], &[100; 6]).spread(),
            Some(vec![0..1, 1..2, 2..3, 3..4, 4..5, 5..5])
        );
        assert_eq!(division(&[10; 5], &[100; 7]).spread(), None, "more devices than parts");
        assert_eq!(
            division(&[10; 5], &[5, 100, 100]).spread(),
            None,
            "no layer fits the first"
        );
    }

    #[test]
    fn layers_that_share_a_cache_stay_together() {
        let division = Division {
            layers: &[10; 4],
            cuts: &[true, true, false, false],
            before: 0,
            output: 0,
            rooms: &[100, 100],
            overheads: vec![0, 0],
        };
        assert_eq!(division.balanced(), Some(vec![0..1, 1..4]));
    }

    proptest! {
        /// Against all divisions of two devices.
        #[test]
        fn no_division_of_two_is_better(
            layers in prop::collection::vec(1u64..50, 1..12),
            rooms in [50u64..300, 50u64..300],
            output in 0u64..40,
        ) {
            let fullest = |cut: usize| {
                let first = layers[..cut].iter().sum::<u64>() as f64 / rooms[0] as f64;
                let last = (layers[cut..].iter().sum::<u64>() + output) as f64 / rooms[1] as f64;
                first.max(last)
            };
            let best = (0..=layers.len()).map(fullest).fold(f64::INFINITY, f64::min);
            match divided(&layers, &rooms, output) {
                None => prop_assert!(best > 1.0),
                Some(ranges) => {
                    prop_assert_eq!((ranges[0].start, ranges[0].end, ranges[1].end), (0, ranges[1].start, layers.len()));
                    // budgets are whole bytes
                    prop_assert!(fullest(ranges[0].end) <= best + 0.05);
                }
            }
        }
    }
}
