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
    /// Whether each of them gets a layer.
    pub each: bool,
}

/// A run of layers on a device, and the best for those before it.
#[derive(Clone, Copy, Debug)]
struct Choice {
    start: usize,
    value: f64,
}

impl Division<'_> {
    /// For each device the layers that it gets: contiguous runs in the order of the devices, so that the fullest of them is
    /// as empty as can be, and then all are as even as can be. `None` where they do not fit.
    pub fn balanced(&self) -> Option<Vec<Range<usize>>> {
        let (_, fullest) = self.best(1.0, f64::max)?;
        // a little more, since sums of floats differ
        let (even, _) = self.best(fullest * (1.0 + 1e-9), |before, share| before + share * share)?;
        Some(even)
    }

    /// The division for which `join` over the shares of all devices is least, where no share exceeds `most`; and what that is.
    fn best(&self, most: f64, join: impl Fn(f64, f64) -> f64) -> Option<(Vec<Range<usize>>, f64)> {
        let (devices, layers) = (self.rooms.len(), self.layers.len());
        let mut table: Vec<Vec<Option<Choice>>> = Vec::with_capacity(devices);
        for device in 0..devices {
            let before = |start: usize| match device {
                0 => (start == 0).then_some(0.0),
                _ => table[device - 1][start].map(|choice| choice.value),
            };
            let row = (0..=layers).map(|end| self.choice(device, end, most, before, &join));
            table.push(row.collect());
        }
        let mut end = layers;
        let value = table.last()?[end]?.value;
        let mut ranges = vec![0..0; devices];
        for device in (0..devices).rev() {
            let start = table[device][end]?.start;
            ranges[device] = start..end;
            end = start;
        }
        Some((ranges, value))
    }

    /// The best run for a device that ends before `end`, given the best for the devices before it by where they end.
    fn choice(
        &self,
        device: usize,
        end: usize,
        most: f64,
        before: impl Fn(usize) -> Option<f64>,
        join: impl Fn(f64, f64) -> f64,
    ) -> Option<Choice> {
        let last = device + 1 == self.rooms.len();
        let mut best: Option<Choice> = None;
        let mut layers = 0;
        for start in (0..=end).rev() {
            layers += self.layers[start..end.min(start + 1)].iter().sum::<u64>();
            let is_cut = start == 0 || start == self.layers.len() || self.cuts[start];
            if !is_cut || start == end && self.needs_a_layer(last) {
                continue;
            }
            let share = self.share(device, start..end, layers, last);
            if share > most {
                // an earlier start takes more, unless nothing was taken so far
                if start == end {
                    continue;
                }
                break;
            }
            if let Some(value) = before(start).map(|before| join(before, share))
                && best.is_none_or(|best| value < best.value)
            {
                best = Some(Choice { start, value });
            }
        }
        best
    }

    /// Whether a device must have a layer; the last may have the output alone, where there are too few for all.
    fn needs_a_layer(&self, last: bool) -> bool {
        let enough = self.layers.len() >= self.rooms.len();
        self.each && !self.layers.is_empty() && (enough || !last)
    }

    /// The share of a device's room that it needs for these layers.
    fn share(&self, device: usize, run: Range<usize>, layers: u64, last: bool) -> f64 {
        if run.is_empty() && !last {
            return 0.0;
        }
        let before = if run.start == 0 && !run.is_empty() {
            self.before
        } else {
            0
        };
        let output = if last { self.output } else { 0 };
        let bytes = layers + before + output + self.overheads[device];
        match (bytes, self.rooms[device]) {
            (0, _) => 0.0,
            (_, 0) => f64::INFINITY,
            (bytes, room) => bytes as f64 / room as f64,
        }
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
            each: false,
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
    fn what_one_must_have_does_not_make_the_others_uneven() {
        // the last is full with the output alone
        assert_eq!(divided(&[10; 8], &[100, 100, 100], 90), Some(vec![0..4, 4..8, 8..8]));
    }

    #[test]
    fn each_device_gets_a_layer_where_that_is_asked() {
        let division = |layers: &'static [u64]| Division {
            layers,
            cuts: &[true; 3],
            before: 0,
            output: 90,
            rooms: &[100, 100, 100],
            overheads: vec![0, 50, 0],
            each: true,
        };
        assert_eq!(division(&[10; 3]).balanced(), Some(vec![0..1, 1..2, 2..3]));
        // the last may have the output alone
        assert_eq!(division(&[10; 2]).balanced(), Some(vec![0..1, 1..2, 2..2]));
        assert_eq!(division(&[10; 1]).balanced(), None);
    }

    #[test]
    fn what_does_not_fit_is_not_divided() {
        assert_eq!(divided(&[60; 3], &[100, 100], 0), None);
        assert_eq!(divided(&[10], &[100, 5], 6), None);
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
            each: false,
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
                    prop_assert!(fullest(ranges[0].end) <= best * (1.0 + 1e-6));
                }
            }
        }
    }
}
